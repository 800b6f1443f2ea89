"""The embedded dataset ``tones``: ten procedural sound classes.

Every clip has a random pitch, onset, length and level, and coloured noise: a single
clip reveals little about its class, a hundred reveal nearly everything.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from audiodd_jax.config import DataConfig
from audiodd_jax.data import audio, datasets
from audiodd_jax.data.recordings import TEST, TRAIN, Decoded, Recordings, Source

SAMPLE_RATE = 8_000
SECONDS = 1.0
TRAIN_CLIPS, TEST_CLIPS = 200, 40  # per class
SEED = 20_220

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


class Event(NamedTuple):
    """A sound within a clip."""

    onset: int  # in samples
    sound: Float[np.ndarray, " samples"]


def clip(label: int, rng: np.random.Generator) -> Float[np.ndarray, " samples"]:
    """Generates a clip of class ``label``, ``SECONDS`` long at ``SAMPLE_RATE`` Hz."""
    return in_noise([event(label, rng)], rng)


def event(label: int, rng: np.random.Generator) -> Event:
    """Generates a sound of class ``label`` with random pitch, onset and length."""
    length = rng.uniform(0.45, 0.85)
    onset = int(rng.uniform(0, SECONDS - length) * SAMPLE_RATE)
    time = np.arange(int(length * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = 350.0 * 2 ** rng.uniform(0, 1.7)
    fade = np.minimum(1, np.minimum(time, time[::-1]) / 0.01)
    return Event(onset, _sound(CLASS_NAMES[label], pitch, time, rng) * fade)


def in_noise(
    events: Sequence[Event], rng: np.random.Generator
) -> Float[np.ndarray, " samples"]:
    """Mixes some events with coloured noise, at a random level."""
    samples = int(SECONDS * SAMPLE_RATE)
    # Background between white and pink, 16 to 30 dB below an event's peak.
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum *= np.maximum(np.arange(spectrum.size), 1.0) ** rng.uniform(-0.5, 0)
    noise = np.fft.irfft(spectrum, samples)
    noise *= 10 ** (rng.uniform(-30, -16) / 20) / noise.std()
    for onset, sound in events:
        noise[onset : onset + sound.size] += sound
    level = 10 ** (rng.uniform(-30, 0) / 20)
    return (level * noise / np.abs(noise).max()).astype(np.float32)


def open_source(config: DataConfig) -> Source:
    """Returns the source; clips are generated when they are read."""
    entry = datasets.lookup("tones")
    return Source("tones", entry.version, entry.licence, entry.version, read)


def read() -> Recordings:
    """Returns the index of all clips; each clip is drawn from its own seed."""
    per_class = TRAIN_CLIPS + TEST_CLIPS
    labels = np.repeat(np.arange(len(CLASS_NAMES), dtype=np.int32), per_class)
    within = np.tile(np.arange(per_class), len(CLASS_NAMES))
    names = tuple(
        f"{CLASS_NAMES[label]}_{i:03d}" for label, i in zip(labels, within, strict=True)
    )
    return generated(names, labels, within < TRAIN_CLIPS, _load)


def generated(
    names: tuple[str, ...],
    labels: Int[np.ndarray, "clips *c"],
    is_train: Bool[np.ndarray, " clips"],
    load: Callable[[int], Decoded],
) -> Recordings:
    """Returns the index of clips that ``load`` generates."""
    clips = len(names)
    headers = audio.Headers(
        np.full(clips, SECONDS, np.float32), np.full(clips, SAMPLE_RATE, np.int32), {}
    )
    return Recordings(
        class_names=CLASS_NAMES,
        names=names,
        labels=labels,
        splits=np.where(is_train, TRAIN, TEST),
        folds=np.zeros(clips, np.int32),
        groups=np.full(clips, ""),
        load=load,
        read_headers=lambda: headers,
    )


def _load(index: int) -> Decoded:
    label = index // (TRAIN_CLIPS + TEST_CLIPS)
    return clip(label, np.random.default_rng([SEED, index])), SAMPLE_RATE
