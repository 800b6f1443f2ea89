"""Active learning: which clips to label next, and what a network learns from them."""
