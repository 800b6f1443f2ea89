"""Dataset names to waveforms and splits."""
