"""TFDS builders that need no TensorFlow."""
