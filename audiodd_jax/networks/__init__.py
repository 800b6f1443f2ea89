"""The networks: random convolutional networks, and Flax models to train."""
