"""Command-line flags and how they become a configuration; does not import JAX."""
