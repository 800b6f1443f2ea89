"""One job per command: its work in a run directory, without flags or printing."""
