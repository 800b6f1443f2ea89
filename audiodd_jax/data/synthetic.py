"""The embedded datasets: ``tones``, ten procedural sound classes, and ``tones_tagged``.

Every clip has a random pitch, onset, length and level, and coloured noise: a single
clip reveals little about its class, a hundred reveal nearly everything. A clip of
``tones_tagged`` is the sum of one to three sounds of different classes, which are its
tags, each at its own random level.
"""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from audiodd_jax.config import DataConfig
from audiodd_jax.data import audio, datasets
from audiodd_jax.data.recordings import TEST, TRAIN, Decoded, Recordings, Source

SAMPLE_RATE = 8_000
SECONDS = 1.0
SEED, TAGGED_SEED = 20_220, 20_260
TRAIN_CLIPS, TEST_CLIPS = 200, 40  # per class
TAGGED_TRAIN_CLIPS, TAGGED_TEST_CLIPS = 2_000, 400
MAX_TAGS = 3
# Level in dB by which a tagged sound may be softer than the loudest possible one.
MAX_ATTENUATION = 12.0
CLASS_NAMES = (
    "chirp_up",
    "chirp_down",
    "amplitude_modulation",
    "frequency_modulation",
    "pulse_train",
    "noise_band",
    "harmonic_stack",
    "siren",
    "clicks",
    "two_tone",
)


def _sine(frequency: np.ndarray | float, time: np.ndarray) -> np.ndarray:
    """Returns a sine whose frequency in Hz may change over time."""
    step = 1.0 / SAMPLE_RATE
    return np.sin(2 * np.pi * np.cumsum(frequency * np.ones_like(time)) * step)


def _sound(name: str, pitch: float, time: np.ndarray, rng: np.random.Generator):
    """Returns the clean sound of a class at ``pitch`` Hz over ``time`` seconds."""
    length = time[-1] + 1.0 / SAMPLE_RATE
    ramp = time / length
    match name:
        case "chirp_up":
            return _sine(pitch * rng.uniform(1.6, 3.0) ** ramp, time)
        case "chirp_down":
            return _sine(pitch * rng.uniform(1.6, 3.0) ** (1 - ramp), time)
        case "amplitude_modulation":
            beat = _sine(rng.uniform(6, 14), time)
            return _sine(1.5 * pitch, time) * (1 + beat) / 2
        case "frequency_modulation":
            depth = rng.uniform(0.12, 0.25)
            return _sine(
                1.5 * pitch * (1 + depth * _sine(rng.uniform(6, 14), time)), time
            )
        case "pulse_train":
            period = 1.0 / rng.uniform(8, 16)
            return _sine(1.5 * pitch, time) * (time % period < 0.35 * period)
        case "noise_band":
            spectrum = np.fft.rfft(rng.standard_normal(time.size))
            hertz = np.fft.rfftfreq(time.size, 1.0 / SAMPLE_RATE)
            spectrum[(hertz < pitch) | (hertz > pitch * rng.uniform(1.6, 3.0))] = 0
            noise = np.fft.irfft(spectrum, time.size)
            return noise / (np.abs(noise).max() + 1e-9)
        case "harmonic_stack":
            count = rng.integers(4, 8)
            partials = [_sine(0.6 * pitch * k, time) / k**0.5 for k in range(1, count)]
            return sum(partials) / 2
        case "siren":
            # Up and down at least once, whatever the length, unlike a chirp.
            sweep = np.abs((time * rng.uniform(4.5, 7.0)) % 2 - 1)
            return _sine(pitch * (1 + 1.2 * sweep), time)
        case "clicks":
            sound = np.zeros_like(time)
            for start in rng.uniform(0, length * 0.95, rng.integers(4, 12)):
                decay = np.exp(-np.maximum(time - start, 0) * 250) * (time >= start)
                sound += rng.uniform(0.5, 1) * decay * rng.standard_normal(time.size)
            return sound
        case "two_tone":
            other = pitch * rng.uniform(1.4, 2.2)
            return (_sine(pitch, time) + _sine(other, time)) / 2
    raise ValueError(name)


def _load(index: int) -> Decoded:
    """Generates a clip of ``tones``."""
    label = index // (TRAIN_CLIPS + TEST_CLIPS)
    return _in_noise([label], 0.0, np.random.default_rng([SEED, index]))


def _load_tagged(index: int) -> Decoded:
    """Generates a clip of ``tones_tagged``."""
    labels, rng = _draw_tags(index)
    return _in_noise(labels.tolist(), MAX_ATTENUATION, rng)


def _draw_tags(index: int) -> tuple[Int[np.ndarray, " tags"], np.random.Generator]:
    """Returns the tags of a clip, and the generator that then draws its sounds."""
    rng = np.random.default_rng([TAGGED_SEED, index])
    count = int(rng.integers(1, MAX_TAGS + 1))
    return rng.choice(len(CLASS_NAMES), count, replace=False), rng


def _in_noise(
    labels: Sequence[int], attenuation: float, rng: np.random.Generator
) -> Decoded:
    """Mixes sounds, up to ``attenuation`` dB softer, with coloured noise."""
    events = []
    for label in labels:
        length = rng.uniform(0.45, 0.85)
        onset = int(rng.uniform(0, SECONDS - length) * SAMPLE_RATE)
        time = np.arange(int(length * SAMPLE_RATE)) / SAMPLE_RATE
        pitch = 350.0 * 2 ** rng.uniform(0, 1.7)
        fade = np.minimum(1, np.minimum(time, time[::-1]) / 0.01)
        sound = _sound(CLASS_NAMES[label], pitch, time, rng) * fade
        if attenuation:
            sound = 10 ** (rng.uniform(-attenuation, 0) / 20) * sound
        events.append((onset, sound))
    samples = int(SECONDS * SAMPLE_RATE)
    # Background between white and pink, 16 to 30 dB below an event's peak.
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum *= np.maximum(np.arange(spectrum.size), 1.0) ** rng.uniform(-0.5, 0)
    noise = np.fft.irfft(spectrum, samples)
    noise *= 10 ** (rng.uniform(-30, -16) / 20) / noise.std()
    for onset, sound in events:
        noise[onset : onset + sound.size] += sound
    level = 10 ** (rng.uniform(-30, 0) / 20)
    return (level * noise / np.abs(noise).max()).astype(np.float32), SAMPLE_RATE


def open_source(config: DataConfig) -> Source:
    """Returns the source; clips are generated when they are read."""
    entry, has_tags = datasets.lookup(config.name), config.name == "tones_tagged"
    read = functools.partial(_read, has_tags)
    version = entry.version
    return Source(config.name, version, entry.licence, version, read, has_tags)


def _read(has_tags: bool) -> Recordings:
    """Returns the index of all clips; each clip is drawn from its own seed."""
    if has_tags:
        clips = np.arange(TAGGED_TRAIN_CLIPS + TAGGED_TEST_CLIPS)
        is_train = clips < TAGGED_TRAIN_CLIPS
        names = tuple(f"clip_{index:04d}" for index in clips)
        labels = np.zeros((clips.size, len(CLASS_NAMES)), np.int8)
        for index in clips.tolist():
            labels[index, _draw_tags(index)[0]] = 1
    else:
        within = np.tile(np.arange(TRAIN_CLIPS + TEST_CLIPS), len(CLASS_NAMES))
        is_train = within < TRAIN_CLIPS
        classes = np.arange(len(CLASS_NAMES), dtype=np.int32)
        labels = np.repeat(classes, TRAIN_CLIPS + TEST_CLIPS)
        names = tuple(
            f"{CLASS_NAMES[label]}_{i:03d}"
            for label, i in zip(labels, within, strict=True)
        )
    count = len(names)
    seconds, rates = np.full(count, SECONDS), np.full(count, SAMPLE_RATE)
    headers = audio.Headers(seconds.astype(np.float32), rates.astype(np.int32), {})
    return Recordings(
        class_names=CLASS_NAMES,
        names=names,
        labels=labels,
        splits=np.where(is_train, TRAIN, TEST),
        folds=np.zeros(count, np.int32),
        groups=np.full(count, ""),
        load=_load_tagged if has_tags else _load,
        read_headers=lambda: headers,
    )
