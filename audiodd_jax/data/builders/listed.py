"""Clips listed in the table of a published dataset."""

from collections.abc import Sequence
from pathlib import Path

from audiodd_jax.data.builders.layout import Clip, Found
from audiodd_jax.errors import UserError


def present(
    clips: list[Clip], table: Path, class_names: Sequence[str], folds: int
) -> Found:
    """The listed clips whose files exist, and the names of the others.

    Raises:
      UserError: an unknown class or fold, or a duplicate clip.
    """
    names = set()
    for clip in clips:
        if clip.class_name not in class_names:
            raise UserError(
                f"{table}: {clip.name} has the unknown class {clip.class_name!r}"
            )
        if not 1 <= int(clip.part.removeprefix("fold")) <= folds:
            raise UserError(f"{table}: {clip.name} has the unknown {clip.part!r}")
        if clip.name in names or Path(clip.name).name != clip.name:
            raise UserError(
                f"{table}: {clip.name} is listed twice, or is not a file name"
            )
        names.add(clip.name)
    # One listing per folder: 100,000 calls of stat take seconds.
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
