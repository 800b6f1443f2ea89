"""The tables of recordings in a folder: one for all, or one for each split.

A table for each split is called, say, ``train.csv`` and ``test.csv``. They are in the
folder itself, or in a folder such as ``meta`` or ``NAME.ground_truth`` in it.
"""

import dataclasses
import itertools
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from audiodd_jax.data import hub_card, segments, tables, tree
from audiodd_jax.data.columns import has_recordings
from audiodd_jax.data.names import Place, development_is_training, in_words, part_in
from audiodd_jax.data.tables import Row
from audiodd_jax.data.tree import LeftOut
from audiodd_jax.errors import UserError, counted

_log = logging.getLogger(__name__)

_SUFFIXES = (".csv", ".tsv", *tables.JSON_LINES)
# Names of folders of tables, such as FSD50K.ground_truth.
OF_TABLES = re.compile(
    r"(?:.*[._ -])?"
    r"(?:meta|metadata|annotations?|labels?|ground_truth|csvs?|tables|splits|lists)",
    re.IGNORECASE,
)


def read(root: Path, left_out: LeftOut) -> list[Row]:
    """Reads the tables of a folder that list its recordings; none: an empty list.

    Raises:
      UserError: several that name no split, or one that cannot be understood.
    """
    folders = tree.subfolders(root, LeftOut())
    if any(map(tree.metadata, folders)) and _has_classes(root):
        return []  # one for each folder
    below = [path for path in folders if OF_TABLES.fullmatch(path.name)]
    for folder in (root, *below):
        usable = [path for path in _tables(folder) if _is_usable(path)]
        if (named := tree.metadata(folder)) in usable:
            return tables.read_any(named, {})
        places = _places(usable, root)
        if places:
            rows = _of_splits(places, left_out)
            for path in usable:
                if path not in places:
                    _log.info("%s is not read: its name is not a split's", path)
                    left_out.add("table that names no split", path)
            return rows
        if usable and not _has_labels(root):
            if len(usable) > 1:
                names = " and ".join(path.name for path in usable[:4])
                raise UserError(
                    f"{folder} holds several tables, {names}: pass one of them as "
                    "--data_dir"
                )
            _log.info("reading the recordings that %s lists", usable[0])
            return tables.read_any(usable[0], {})
    return []


def warn_of_others(table: Path) -> None:
    """Says that tables of other splits next to a given one are not read."""
    others = [path for path in _tables(table.parent) if _part(path)]
    others = [path for path in others if path != table and _is_usable(path)]
    if _part(table) and others:
        names = ", ".join(path.name for path in others)
        _log.warning(
            "%s is read alone, without %s; pass their folder as --data_dir to read all "
            "as the splits of one data set",
            table.name,
            names,
        )


def _tables(folder: Path) -> list[Path]:
    found = [
        path for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES
    ]
    return [path for path in found if path.is_file() and not tree.is_hidden(path.name)]


def _is_usable(table: Path) -> bool:
    header = tables.header_of(table)
    return has_recordings(header, "path") and (
        bool(_part(table)) or has_recordings(header, "label")
    )


def _part(table: Path) -> Place:
    try:
        return part_in(table.stem)
    except UserError:  # train_test.csv
        return {}


def _places(usable: Sequence[Path], root: Path) -> dict[Path, Place]:
    """The split or fold of each table that is one's, by the card or by its name."""
    declared = hub_card.splits(root)
    places = {path: declared.get(path) or _part(path) for path in usable}
    places = {path: place for path, place in places.items() if place}
    return development_is_training(places, {path: path.stem for path in places})


def _of_splits(places: dict[Path, Place], left_out: LeftOut) -> list[Row]:
    """Reads tables of splits; those without labels are left out."""
    read = {}
    for path, place in places.items():
        rows = tables.read_any(path, place, needs_label=False)
        if any(row.label for row in rows):
            # FSD50K's dev.csv has a column with both of its splits.
            names = {row["split"] for row in rows} - {""}
            if len(names) > 1 and "dev" in path.stem.lower():
                rows = [dataclasses.replace(row, place={}) for row in rows]
            read[path] = rows
        elif rows:
            _log.warning(
                "%s gives no labels, so %s not used",
                path,
                counted(len(rows), "recording is", "recordings are"),
            )
            left_out.add("recording in a table without labels", path, len(rows))
    if not read:
        names = " and ".join(path.name for path in places)
        raise UserError(
            f"{names} in {next(iter(places)).parent} have no labels; the column is "
            "called label"
        )
    words = [f"{path.name} as {in_words(places[path])}" for path in read]
    _log.info("reading %s", ", ".join(words))
    return list(itertools.chain(*read.values()))


def _has_labels(root: Path) -> bool:
    """Returns whether folders, or files of labels, may have the labels."""
    return _has_classes(root) or bool(segments.next_to_sounds(root, {}, LeftOut()))


def _has_classes(root: Path) -> bool:
    """Returns whether several folders hold sounds, which may be classes or splits."""
    folders = tree.subfolders(root, LeftOut())
    return sum(bool(tree.sound_files(path, LeftOut())) for path in folders) > 1
