"""Kernel regression: random features, ridge regression, exact kernels."""
