"""Active learning: acquisition functions, queries, rounds, and labelled subsets."""
