"""The networks: random ones, whose features are kernels."""
