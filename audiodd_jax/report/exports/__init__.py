"""Coresets in the hands of other libraries: PyTorch, NumPy, Hugging Face datasets."""
