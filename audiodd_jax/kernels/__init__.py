"""Kernels from random networks, and ridge regression on them."""
