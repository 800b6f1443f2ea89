"""One job per command, without flags or printing."""
