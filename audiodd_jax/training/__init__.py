"""Training of networks, and evaluation of networks and coresets."""
