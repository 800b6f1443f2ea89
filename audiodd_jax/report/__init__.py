"""Finished runs as tables, figures, cards, web pages and exports."""
