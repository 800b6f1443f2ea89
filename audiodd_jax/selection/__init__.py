"""Choosing real clips: random, herding, k-center, and subsets of the training split."""
