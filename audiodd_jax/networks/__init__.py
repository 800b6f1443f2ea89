"""Networks: random convolutional networks, and Flax modules to train."""
