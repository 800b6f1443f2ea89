"""The embedded dataset ``tones_tagged``: sounds of ``tones``, several in one clip.

Each clip is the sum of one to three sounds of different classes, each at its own random
level, in coloured noise; its tags are their classes.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Int

from audiodd_jax.config import DataConfig
from audiodd_jax.data import audio, datasets, synthetic
from audiodd_jax.data.recordings import TEST, TRAIN, Decoded, Recordings, Source
from audiodd_jax.data.synthetic import CLASS_NAMES, SAMPLE_RATE, SECONDS

TRAIN_CLIPS, TEST_CLIPS = 2_000, 400
MAX_TAGS = 3
# A sound may be this much softer than the loudest possible one of its clip, in dB.
MAX_ATTENUATION = 12.0
SEED = 20_260


def open_source(config: DataConfig, cache_dir: Path) -> Source:
    """The dataset's source; it is made when it is read and needs no place on disk."""
    entry = datasets.lookup("tones_tagged")
    version = entry.version
    return Source("tones_tagged", version, entry.licence, version, read, has_tags=True)


def read() -> Recordings:
    """Generates all clips; each is drawn from its own seed."""
    clips = TRAIN_CLIPS + TEST_CLIPS
    labels = np.zeros((clips, len(CLASS_NAMES)), np.int8)
    for index in range(clips):
        labels[index, _drawn(index)[0]] = 1
    return Recordings(
        class_names=CLASS_NAMES,
        names=tuple(f"clip_{index:04d}" for index in range(clips)),
        labels=labels,
        splits=np.where(np.arange(clips) < TRAIN_CLIPS, TRAIN, TEST),
        folds=np.zeros(clips, np.int32),
        groups=np.full(clips, ""),
        load=_load,
        read_headers=lambda: audio.Headers(
            np.full(clips, SECONDS, np.float32),
            np.full(clips, SAMPLE_RATE, np.int32),
            {},
        ),
    )


def _drawn(index: int) -> tuple[Int[np.ndarray, " tags"], np.random.Generator]:
    """The tags of a clip, and the generator that goes on to draw its sounds."""
    rng = np.random.default_rng([SEED, index])
    count = int(rng.integers(1, MAX_TAGS + 1))
    return rng.choice(len(CLASS_NAMES), count, replace=False), rng


def _load(index: int) -> Decoded:
    labels, rng = _drawn(index)
    events = []
    for label in labels.tolist():
        event = synthetic.event(label, rng)
        gain = 10 ** (rng.uniform(-MAX_ATTENUATION, 0) / 20)
        events.append(event._replace(sound=gain * event.sound))
    return synthetic.in_noise(events, rng), SAMPLE_RATE
