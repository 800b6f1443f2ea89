"""Names of datasets to waveforms and splits."""
