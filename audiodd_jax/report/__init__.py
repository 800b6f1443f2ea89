"""Results to tables, figures, cards and HTML: rendering only."""
