"""The coreset as arrays: initialisation, and several spectrograms in one image."""
