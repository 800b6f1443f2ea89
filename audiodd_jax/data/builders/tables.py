"""The tables in which a published dataset lists its clips."""

import csv
from collections.abc import Sequence
from pathlib import Path

from audiodd_jax.data.builders.layout import Clip, Found
from audiodd_jax.runtime.errors import UserError


def read(
    table: Path, columns: Sequence[str], numbers: Sequence[str] = ()
) -> list[dict[str, str]]:
    """The rows of a CSV with at least ``columns``, of which ``numbers`` are numbers.

    Raises:
      UserError: no CSV in UTF-8, a column or a value that is missing, no number.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            lacking = set(columns) - set(reader.fieldnames or ())
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table} is not a CSV in UTF-8 ({error})") from error
    if lacking:
        raise UserError(f"{table} lacks the columns {', '.join(sorted(lacking))}")
    for line, row in enumerate(rows, start=2):
        for name in columns:
            if not row[name]:
                raise UserError(f"{table}, line {line} lacks its {name}")
        for name in numbers:
            if not row[name].isdigit():
                raise UserError(f"{table}, line {line}: {row[name]!r} is no {name}")
    return rows


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
