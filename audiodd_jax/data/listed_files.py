"""The sound files that the rows of tables name.

Paths are relative to the table's folder. If none of a table's files is there, as when
``train.csv`` is next to the folder ``train``, they are found by their names.
"""

import collections
import dataclasses
import itertools
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from audiodd_jax.config.user_paths import expanded
from audiodd_jax.data import audio, tree
from audiodd_jax.data.folder_tables import OF_TABLES
from audiodd_jax.data.names import named_part, part_in
from audiodd_jax.data.tables import Row
from audiodd_jax.errors import UserError, counted

_log = logging.getLogger(__name__)


def located(rows: Sequence[Row], root: Path) -> tuple[list[Row], list[Path]]:
    """Returns the recording of each row, and rows with the splits of their folders.

    ``root`` is the folder that is searched, next to the table's.

    Raises:
      UserError: a row's name is that of several files.
    """
    by_table = collections.defaultdict(list)
    for i, row in enumerate(rows):
        if not row.sound:
            by_table[row.table].append(i)
    paths = [row.sound or _direct(row) for row in rows]
    result = list(rows)
    for table, indices in by_table.items():
        listed = [rows[i] for i in indices]
        if not any(paths[i].is_file() for i in indices):
            for i, path in zip(indices, _found(table, listed, root), strict=True):
                paths[i] = path or paths[i]
        places = _places([paths[i] for i in indices], table.parent)
        if places and not any(
            row.place or row["split"] or row.fold is not None for row in listed
        ):
            _log.info(
                "reading the splits of %s from the folders of its files", table.name
            )
            for i, place in zip(indices, places, strict=True):
                result[i] = dataclasses.replace(rows[i], place=place)
    return result, paths


def _direct(row: Row) -> Path:
    """The file that a row names, relative to the table's folder."""
    folder, text = row.table.parent, row["path"]
    if not text:  # decoding says that this does not exist
        return folder / f"{row.table.name}, {row.unit} {row.line}"
    file = folder / text
    if not file.exists():
        file = folder / expanded(text)
    if "\\" in text and not file.exists():
        file = folder / text.replace("\\", "/")
    return file


def _found(table: Path, rows: Sequence[Row], root: Path) -> list[Path | None]:
    """Finds the files of rows by the parts of their paths that differ between rows."""
    listed = [PurePosixPath(row["path"].replace("\\", "/")) for row in rows]
    same = itertools.takewhile(
        lambda parts: len(set(parts)) == 1,
        zip(*(p.parts[:-1] for p in listed), strict=False),
    )
    shared = len(list(same))
    folders = [table.parent, *([root] if root.is_dir() else [])]
    if OF_TABLES.fullmatch(table.parent.name):
        folders.append(table.parent.parent)
    sounds: list[Path] = []
    for folder in folders:
        sounds = sounds or tree.sound_files(folder, tree.LeftOut())
    by_name = collections.defaultdict(list)
    for path in sounds:
        for name in {path.name, path.stem, path.name.lower(), path.stem.lower()}:
            by_name[name].append(path)
    result = [
        _best(row, path.parts[shared:], by_name)
        for row, path in zip(rows, listed, strict=True)
    ]
    if found := sorted({str(path.parent) for path in result if path}):
        more = f" and {counted(len(found) - 1, 'more folder')}" if found[1:] else ""
        _log.info("the files of %s are in %s%s", table.name, found[0], more)
    return result


def _best(
    row: Row, parts: Sequence[str], by_name: Mapping[str, Sequence[Path]]
) -> Path | None:
    """The file whose path ends in ``parts``; of several, that of the row's split."""
    if not parts:
        return None
    *folders, name = parts
    names = [name, name.lower()]
    if PurePosixPath(name).suffix.lower() in audio.SUFFIXES:  # converted since
        names.append(PurePosixPath(name).stem)
    candidates = next(filter(None, map(by_name.get, names)), ())
    found = [
        path
        for path in candidates
        if path.parts[len(path.parts) - 1 - len(folders) : -1] == tuple(folders)
    ]
    if len(found) > 1:
        wanted = {**_part(row.table.stem), "fold": row.fold}
        wanted["split"] = row.split or wanted.get("split")
        common = os.path.commonpath(found)
        fits = lambda path: any(
            wanted[kind] == value
            for folder in path.relative_to(common).parts
            for kind, value in _part(folder).items()
        )
        of_part = list(filter(fits, found))
        if len(of_part) != 1:
            raise row.error(
                f"{name} could be {found[0]} or {found[1]}: write its path from the "
                "folder of the table"
            )
        found = of_part
    return found[0] if found else None


def _part(folder: str) -> dict:
    try:
        return part_in(folder)
    except UserError:
        return {}


def _places(paths: Iterable[Path], base: Path) -> list[dict]:
    """The split or fold of each file by its folders; none unless each has one."""
    result = []
    for path in paths:
        folders = (
            path.parent.relative_to(base).parts if path.is_relative_to(base) else ()
        )
        result.append(next(filter(None, map(named_part, folders)), {}))
    kinds = {tuple(place) for place in result}
    are_several = len({tuple(place.values()) for place in result}) > 1
    return result if len(kinds) == 1 and are_several else []
