"""Costs of runs before they start, also on accelerators you don't have."""
