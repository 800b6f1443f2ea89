"""Turns recordings into spectrograms like those of the coreset, with NumPy alone.

    from preprocess import preprocess

    spectrogram = preprocess(waveform, sample_rate)  # [f, t] float32

``frontend.npz`` next to this file holds the filter bank, the window and the statistics.
"""

from pathlib import Path

import numpy as np

with np.load(Path(__file__).parent / "frontend.npz", allow_pickle=False) as file:
    FRONTEND = dict(file)
# The sample rate in Hz, and the number of samples in a clip.
SAMPLE_RATE, SAMPLES = int(FRONTEND["sample_rate"]), int(FRONTEND["samples"])


def preprocess(waveform, sample_rate):
    """Returns a standardised log-mel spectrogram, ``[f, t]`` float32.

    The waveform is mono, ``[samples]`` in [-1, 1], and the sample rate is in Hz.
    """
    waveform = np.asarray(waveform, np.float32)
    if waveform.ndim != 1 or not waveform.size:
        shape = waveform.shape
        raise ValueError(f"expected a waveform with one axis, not the shape {shape}")
    decibel = log_mel(fitted(resampled(waveform, sample_rate)))
    mean, std = FRONTEND["mean"][:, None], FRONTEND["std"][:, None]
    return ((decibel - mean) / std).astype(np.float32)


def resampled(waveform, sample_rate):
    """Resamples a waveform to ``SAMPLE_RATE`` by the Fourier transform.

    audiodd_jax uses soxr. The two agree except near the highest frequency, where the
    filter of soxr rolls off.
    """
    if sample_rate == SAMPLE_RATE:
        return waveform
    length = round(waveform.size * SAMPLE_RATE / sample_rate)
    # Pad with zeros, since the transform treats the waveform as periodic.
    seconds = -(-waveform.size // sample_rate) + 1
    spectrum = np.fft.rfft(waveform, seconds * sample_rate)
    kept = spectrum[: seconds * min(sample_rate, SAMPLE_RATE) // 2 + 1]
    scale = SAMPLE_RATE / sample_rate
    result = scale * np.fft.irfft(kept, seconds * SAMPLE_RATE)
    return result[:length].astype(np.float32)


def fitted(waveform):
    """Pads or cuts a waveform to ``SAMPLES`` samples."""
    align, length = str(FRONTEND["align"]), waveform.size
    if align == "repeat" and length < SAMPLES:
        return np.resize(waveform, SAMPLES)
    kept = min(length, SAMPLES)
    is_centred = align == "center"
    first = (length - kept) // 2 * is_centred
    before = (SAMPLES - kept) // 2 * is_centred
    return np.pad(waveform[first : first + kept], (before, SAMPLES - kept - before))


def log_mel(waveform):
    """Returns the log-mel spectrogram ``[f, t]`` in dB of a clip at ``SAMPLE_RATE``.

    Frame ``i`` is centred on sample ``i * hop``; the ends are padded with zeros.
    """
    window, hop = FRONTEND["window"], int(FRONTEND["hop"])
    padded = np.pad(waveform, window.size // 2)
    starts = hop * np.arange(SAMPLES // hop)
    frames = padded[starts[:, None] + np.arange(window.size)]
    power = FRONTEND["filters"] @ (np.abs(np.fft.rfft(frames * window)) ** 2).T
    silence, floor = FRONTEND["silence"], -FRONTEND["top_db"]
    decibel = 10 * np.log10(np.maximum(power, silence))
    if FRONTEND["keeps_level"]:
        floor = floor + decibel.max()
    elif FRONTEND["is_relative"]:
        # The loudest bin of a clip has 0 dB; a silent clip is at the floor.
        decibel -= decibel.max() if power.max() > silence else np.inf
    return np.maximum(decibel, floor)
