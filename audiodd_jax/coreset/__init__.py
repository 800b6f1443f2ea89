"""The coreset as arrays: where it starts, and how several clips share one image."""
