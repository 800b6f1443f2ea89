"""Recordings in folders of classes, below folders of splits or folds if there are any.

Layouts, by the names of the folders:

- ``CLASS/**/file``;
- ``train/CLASS/**/file``, ``test/CLASS/**/file``, and so on;
- ``fold1/CLASS/**/file`` to ``fold10/CLASS/**/file``;
- ``metadata.csv`` with file names and labels in the folder or in each split's folder.
"""

import logging
import re
from pathlib import Path
from typing import Any

from audiodd_jax.data import audio
from audiodd_jax.data.files_found import LeftOut, recordings, subfolders
from audiodd_jax.data.recordings import TEST, TRAIN, VALIDATION
from audiodd_jax.errors import UserError

_log = logging.getLogger(__name__)

SPLIT_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "validation": VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
    "eval": TEST,
}
METADATA = "metadata.csv"
_FOLD = re.compile(r"fold[ _-]?(\d{1,4})", re.IGNORECASE)


def split_folders(root: Path, left_out: LeftOut) -> dict[Path, dict[str, Any]]:
    """The folders below ``root`` that hold classes, with their split or fold.

    ``root`` itself, unless its subfolders are splits or folds.
    """
    folders = subfolders(root, left_out)
    splits = {p: SPLIT_NAMES.get(p.name.lower()) for p in folders}
    folds = {p: _FOLD.fullmatch(p.name) for p in folders}
    for names, of in (
        ("splits", {p: {"split": s} for p, s in splits.items() if s}),
        ("folds", {p: {"fold": int(f[1])} for p, f in folds.items() if f}),
    ):
        # One folder called train may be a class, such as the sound of a train.
        if len(of) > 1 or (len(of) == 1 and len(folders) == 1):
            for other in folders:
                if other not in of:
                    count = len(recordings(other, left_out))
                    left_out.add(f"folder that is not one of the {names}", other, count)
            _log.info(
                "reading %s as %s, with classes below",
                ", ".join(sorted(p.name for p in of)[:4]),
                names,
            )
            return of
    return {root: {}}


def rows(place: Path, mark: dict[str, Any], left_out: LeftOut) -> list[dict[str, Any]]:
    """A row per recording of the class folders in ``place``.

    Args:
      place: folder of class folders.
      mark: ``split`` or ``fold`` of all rows.
      left_out: counts what is not used.

    Raises:
      UserError: a class folder without a recording.
    """
    found = []
    for folder in subfolders(place, left_out):
        files = recordings(folder, left_out)
        if not files:
            raise UserError(
                f"the class folder {folder} holds no sound file "
                f"({', '.join(s[1:] for s in audio.SUFFIXES)})"
            )
        found += [{"path": file, "label": folder.name, **mark} for file in files]
    for file in place.iterdir():
        if file.is_file() and file.suffix.lower() in audio.SUFFIXES:
            left_out.add("recording outside of the class folders", file)
    return found
