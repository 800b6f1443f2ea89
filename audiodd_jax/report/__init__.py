"""Pictures and cards of runs."""
