"""The Free Spoken Digit Dataset.

3,000 recordings of the digits 0-9 by six speakers at 8 kHz. Official split: takes 0-4
of each speaker and digit test, takes 5-49 train.
"""

import re
from pathlib import Path

from audiodd_jax.config import DataConfig
from audiodd_jax.data import datasets
from audiodd_jax.data.published import source
from audiodd_jax.data.recordings import TEST, TRAIN, Clip, Source
from audiodd_jax.errors import UserError

CLASS_NAMES = tuple("0123456789")
FIRST_TRAIN_TAKE = 5
_NAME = re.compile(r"([0-9])_([a-z]+)_([0-9]+)")
# Six speakers, 50 takes.
PUBLISHED = {
    (digit, part): clips
    for digit in CLASS_NAMES
    for part, clips in ((TEST, 30), (TRAIN, 270))
}


def find(folder: Path) -> source.Contents:
    """Finds the recordings of a checkout, which are called ``digit_speaker_take.wav``.

    The official split has every speaker on both sides. Clips therefore have no groups,
    and validation clips are drawn from all speakers too.
    """
    clips = []
    for stem, path in source.sounds(folder / "recordings").items():
        match = _NAME.fullmatch(stem)
        if not match:
            raise UserError(f"{path} is not named digit_speaker_take.wav")
        split = TEST if int(match[3]) < FIRST_TRAIN_TAKE else TRAIN
        clips.append(Clip(path, (match[1],), f"{stem}.wav", split))
    return source.Contents(clips, [])


def open_source(config: DataConfig) -> Source:
    """Finds a checkout, or the published archive."""
    entry = datasets.lookup(config.name)
    layout = source.Layout(
        class_names=CLASS_NAMES,
        markers=("recordings",),
        holds="recordings/digit_speaker_take.wav",
        archive=f"free-spoken-digit-dataset-{entry.version}.tar.gz",
        url=f"{entry.homepage}/archive/refs/tags/v{entry.version}.tar.gz",
        # No checksum: the host packs the archive on request and publishes none.
        max_bytes=200 << 20,
        advice=f"pass --data_dir with a checkout of {entry.homepage}",
        find=find,
        published=PUBLISHED,
    )
    return source.open_source(layout, config)
