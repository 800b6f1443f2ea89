"""Published datasets: their archives, layouts, official splits and counts."""
