"""Coresets: arrays, files, views, packing, and the clips that they start from."""
