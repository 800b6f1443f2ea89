"""Array operations with implementations tuned for XLA:CPU."""
