"""Coresets as folders for PyTorch, NumPy and Hugging Face datasets."""
