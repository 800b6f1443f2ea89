"""Active learning: acquisition functions, queries, and the loop."""
