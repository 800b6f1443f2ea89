"""How well a coreset serves."""
