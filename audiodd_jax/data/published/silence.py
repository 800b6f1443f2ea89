"""Clips of the class silence, cut from recordings of background noise."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from audiodd_jax.data import audio
from audiodd_jax.data.clips import Clip
from audiodd_jax.data.recordings import TEST, TRAIN, VALIDATION

SEED = 59_185
SECONDS = 1.0
# Each noise recording is divided along time, so that splits share no samples.
SHARES = {TRAIN: (0.0, 0.8), VALIDATION: (0.8, 0.9), TEST: (0.9, 1.0)}


def cut(
    noise: Sequence[Path], counts: Mapping[str, int], class_name: str
) -> list[Clip]:
    """Cuts ``counts[split]`` one-second clips per split at random offsets and levels.

    The seed is fixed. A split leaves out recordings that are too short for it.
    """
    rng = np.random.default_rng(SEED)
    seconds = audio.headers(noise).seconds
    clips = []
    for split, count in counts.items():
        low, high = SHARES[split]
        usable = np.flatnonzero((high - low) * seconds > SECONDS)
        for i in range(count if usable.size else 0):
            which = int(rng.choice(usable))
            first, last = low * seconds[which], high * seconds[which] - SECONDS
            clips.append(
                Clip(
                    path=noise[which],
                    labels=(class_name,),
                    name=f"{class_name}/{split}-{i:05d}.wav",
                    split=split,
                    group=noise[which].name,
                    start=float(rng.uniform(first, last)),
                    seconds=SECONDS,
                    gain=float(rng.uniform(0.0, 1.0)),
                )
            )
    return clips
