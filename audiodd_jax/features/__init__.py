"""Waveforms to standardised log-mel spectrograms."""
