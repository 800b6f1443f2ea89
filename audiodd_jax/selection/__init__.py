"""Selection of real clips: random, herding, k-center, subsets of the training split."""
