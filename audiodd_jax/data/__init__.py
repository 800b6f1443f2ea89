"""Datasets: from names to waveforms, labels and splits."""
