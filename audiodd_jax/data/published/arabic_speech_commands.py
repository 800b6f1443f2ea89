"""Arabic Speech Commands: 40 keywords of one second, 30 speakers, official lists.

The speakers of the three parts are disjoint: 18, 6 and 6.

References:
  Ghandoura, Hjabo, Al Dakkak, *Building and Benchmarking an Arabic Speech Commands
  Dataset for Small-Footprint Keyword Spotting*, Engineering Applications of Artificial
  Intelligence 102, 2021.
"""

import os
from pathlib import Path, PurePosixPath

from audiodd_jax.config import DataConfig
from audiodd_jax.data import datasets
from audiodd_jax.data.published import source
from audiodd_jax.data.recordings import TEST, TRAIN, VALIDATION, Clip, Source
from audiodd_jax.data.tables import read
from audiodd_jax.errors import UserError

TABLES = {"train.csv": TRAIN, "val.csv": VALIDATION, "test.csv": TEST}
NOISE_FOLDER = "background_noise"
CLIPS = {TRAIN: 180, VALIDATION: 60, TEST: 60}  # of each keyword
CLASS_NAMES = (
    *("backward", "cancel", "close", "digit", "direction", "disable", "down"),
    *("eight", "enable", "enter", "five", "forward", "four", "left", "move", "next"),
    *("nine", "no", "ok", "one", "open", "options", "previous", "receive", "record"),
    *("right", "rotate", "send", "seven", "six", "start", "stop", "three", "two"),
    *("undo", "up", "yes", "zero", "zoom in", "zoom out"),
)


def find(folder: Path) -> source.Contents:
    """Finds the clips of the three tables; groups are speakers."""
    splits: dict[str, tuple[str, str]] = {}  # name and split by name without suffix
    for table, split in TABLES.items():
        for row in read(folder / table, ("file", "class")):
            name = "/".join(PurePosixPath(row["file"]).parts[-2:])
            stem = os.path.splitext(name)[0]
            if stem in splits:
                raise UserError(f"{folder / table}: {row['file']} is listed twice")
            splits[stem] = name, split
    clips = []
    for keyword in CLASS_NAMES:
        for stem, path in source.sounds(folder / "dataset" / keyword).items():
            name, split = splits.pop(f"{keyword}/{stem}", ("", ""))
            if name:
                speaker = stem.split("_NO_")[0]
                clips.append(Clip(path, (keyword,), name, split, group=speaker))
    missing = sorted(name for name, _ in splits.values())
    noise = source.sounds(folder / NOISE_FOLDER).values()
    return source.Contents(clips, missing, tuple(noise))


def open_source(config: DataConfig) -> Source:
    """Finds the folder or archive."""
    layout = source.Layout(
        class_names=CLASS_NAMES,
        markers=("val.csv",),
        holds="dataset/KEYWORD/*.wav and train.csv, val.csv and test.csv",
        archive="arabic-speech-commands-dataset.zip",
        max_bytes=2 << 30,
        advice=f"download it from {datasets.lookup(config.name).homepage}",
        find=find,
        published={(name, part): CLIPS[part] for name in CLASS_NAMES for part in CLIPS},
    )
    return source.open_source(layout, config)
