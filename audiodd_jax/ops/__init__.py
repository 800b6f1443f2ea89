"""Array functions tuned for the CPU, and the plain ones used elsewhere."""
