"""Clips that a published dataset's table lists."""

from collections.abc import Sequence
from pathlib import Path

from audiodd_jax.data.builders.layout import Clip, Found
from audiodd_jax.runtime.errors import UserError


def present(
    clips: list[Clip], table: Path, class_names: Sequence[str], folds: int
) -> Found:
    """Those of the listed clips whose file is there, and the names of the others.

    Raises:
      UserError: a class or a fold that the dataset does not have, or a clip twice.
    """
    names = set()
    for clip in clips:
        if clip.class_name not in class_names:
            raise UserError(f"{table}: {clip.name} is of no class, {clip.class_name!r}")
        if not 1 <= int(clip.part.removeprefix("fold")) <= folds:
            raise UserError(f"{table}: {clip.name} is of no fold, {clip.part!r}")
        if clip.name in names or Path(clip.name).name != clip.name:
            raise UserError(f"{table}: {clip.name} is there twice, or is no file name")
        names.add(clip.name)
    # One listing a folder: 100,000 questions of the disk take seconds.
    listed = {
        folder: {entry.name for entry in folder.iterdir()}
        for folder in {clip.path.parent for clip in clips}
        if folder.is_dir()
    }
    is_there = lambda clip: clip.path.name in listed.get(clip.path.parent, ())
    return Found(
        [clip for clip in clips if is_there(clip)],
        [clip.name for clip in clips if not is_there(clip)],
    )
