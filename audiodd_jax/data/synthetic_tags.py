"""The embedded dataset ``tones_tagged``: sounds of ``tones``, several in one clip.

Each clip is the sum of one to three sounds of different classes, each at its own random
level, in coloured noise; its tags are their classes.
"""

import numpy as np
from jaxtyping import Int

from audiodd_jax.config import DataConfig
from audiodd_jax.data import datasets, synthetic
from audiodd_jax.data.recordings import Decoded, Recordings, Source
from audiodd_jax.data.synthetic import CLASS_NAMES, SAMPLE_RATE

TRAIN_CLIPS, TEST_CLIPS = 2_000, 400
MAX_TAGS = 3
# Level in dB by which a sound may be softer than the loudest possible one.
MAX_ATTENUATION = 12.0
SEED = 20_260


def open_source(config: DataConfig) -> Source:
    """Returns the source; clips are generated when they are read."""
    entry = datasets.lookup("tones_tagged")
    version = entry.version
    return Source("tones_tagged", version, entry.licence, version, read, has_tags=True)


def read() -> Recordings:
    """Returns the index of all clips; each clip is drawn from its own seed."""
    clips = np.arange(TRAIN_CLIPS + TEST_CLIPS)
    labels = np.zeros((clips.size, len(CLASS_NAMES)), np.int8)
    for index in clips:
        labels[index, _draw_tags(int(index))[0]] = 1
    names = tuple(f"clip_{index:04d}" for index in clips)
    return synthetic.generated(names, labels, clips < TRAIN_CLIPS, _load)


def _draw_tags(index: int) -> tuple[Int[np.ndarray, " tags"], np.random.Generator]:
    """Returns the tags of a clip, and the generator that then draws its sounds."""
    rng = np.random.default_rng([SEED, index])
    count = int(rng.integers(1, MAX_TAGS + 1))
    return rng.choice(len(CLASS_NAMES), count, replace=False), rng


def _load(index: int) -> Decoded:
    labels, rng = _draw_tags(index)
    events = []
    for label in labels.tolist():
        event = synthetic.event(label, rng)
        gain = 10 ** (rng.uniform(-MAX_ATTENUATION, 0) / 20)
        events.append(event._replace(sound=gain * event.sound))
    return synthetic.in_noise(events, rng), SAMPLE_RATE
