"""Any labelled folder of sounds: folders of classes, a CSV of paths, or Parquet.

Folders in the layouts of FSD50K and of HEAR's tasks are known by their tables.

A table has tags if the label of any row has a semicolon: ``dog;siren``. In such a table
``dog`` and ``dog;`` are the one tag, and an empty label is a clip without tags; in any
other an empty label is an error, since it is more likely to be a mistake.
"""

import logging
import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from audiodd_jax.config import DataConfig
from audiodd_jax.data import (
    audio,
    csv_tables,
    datasets,
    identical,
    parquet,
    tagged_layouts,
    tags,
    tree,
)
from audiodd_jax.data.files_found import LeftOut
from audiodd_jax.data.recordings import (
    Decoded,
    Recordings,
    Source,
    fingerprint_files,
)
from audiodd_jax.errors import UserError

_log = logging.getLogger(__name__)

# Between the tags of a clip in a table.
_SEPARATOR = ";"
_ALIASES = {
    "path": ("file_name", "filename", "file", "filepath", "file_path", "audio"),
    "label": ("class", "category", "class_name"),
    "split": ("subset", "partition"),
    "fold": (),
    "group": ("speaker", "speaker_id"),
}


def open_source(config: DataConfig, cache_dir: Path) -> Source:
    """Finds the recordings of ``config.data_dir``: a folder, a CSV, or Parquet.

    Raises:
      UserError: nothing is there, or a table cannot be understood.
    """
    place, left_out = Path(config.data_dir).expanduser(), LeftOut()
    if parquet.files(place):
        place = parquet.unpacked(place, cache_dir)
    tables: list[Path] = []
    has_tags = False
    if place.is_dir() and (layout := tagged_layouts.read(place, left_out)):
        rows, tables, has_tags = layout
    elif place.is_dir():
        rows = []
        for folder, mark in tree.split_folders(place, left_out).items():
            table = folder / tree.METADATA
            if table.is_file():
                tables.append(table)
                rows += _rows_of_table(table, mark)
            else:
                rows += tree.rows(folder, mark, left_out)
    elif place.is_file():
        tables.append(place)
        rows = _rows_of_table(place, {})
    else:
        raise UserError(
            f"--data_dir={config.data_dir} is neither a folder nor a CSV; give a "
            "folder of class_name/*.wav, or a CSV with the columns path and label"
        )
    has_tags |= any(_SEPARATOR in row["label"] for row in rows if "line" in row)
    rows = _checked(rows, place, has_tags)
    if not any(row["path"].is_file() for row in rows):
        raise UserError(
            f"{place}: none of the {len(rows)} listed files exists, such as "
            f"{rows[0]['path']}; paths are relative to the table's folder"
        )
    # Relative to /, since a table may name files anywhere.
    files = [row["path"] for row in rows]
    root = Path("/") if tables else place
    fingerprint = fingerprint_files([*map(_absolute, files), *tables], root)
    entry = datasets.lookup("folder")
    return Source(
        "folder",
        entry.version,
        entry.licence,
        fingerprint,
        lambda: _index(rows, place, left_out, has_tags),
        has_tags,
    )


def _absolute(path: Path) -> Path:
    return path.resolve() if path.exists() else path.absolute()


def _rows_of_table(table: Path, mark: dict[str, Any]) -> list[dict[str, Any]]:
    """A CSV with ``path,label`` and optionally ``split``, ``fold`` and ``group``."""
    rows = []
    records = csv_tables.read(table, ("path", "label"), _ALIASES, ("label",))
    for line, record in enumerate(records, start=2):
        split = (record.get("split") or "").strip().lower()
        if split and split not in tree.SPLIT_NAMES:
            raise UserError(
                f"{table}, line {line}: the split is train, validation or test, "
                f"not {split}"
            )
        rows.append(
            {
                "path": _path(table, record["path"].strip()),
                "label": (record["label"] or "").strip(),
                "line": (table, line),
                "split": tree.SPLIT_NAMES.get(split, ""),
                "fold": csv_tables.fold_number(record.get("fold") or "", table, line),
                "group": (record.get("group") or "").strip(),
                **mark,
            }
        )
    return rows


def _path(table: Path, text: str) -> Path:
    """A path of a table, relative to it; Windows' separators are read too."""
    path = table.parent / Path(text).expanduser()
    if "\\" in text and not path.exists():
        return table.parent / text.replace("\\", "/")
    return path


def _checked(
    rows: list[dict[str, Any]], place: Path, has_tags: bool
) -> list[dict[str, Any]]:
    """The rows with equal ones merged, labels as sets of names, folds from 1.

    Raises:
      UserError: fewer than two classes, missing labels or folds, or contradictory rows.
    """
    blank = {"split": "", "fold": None, "group": ""}
    rows = [{**blank, **row, "label": _names(row, has_tags)} for row in rows]
    rows = _without_repeats(rows, place)
    num_classes = len(set().union(*(row["label"] for row in rows)))
    if num_classes < 2:
        raise UserError(
            f"{place} holds {num_classes} classes of sounds; at least two are needed, "
            "as folders class_name/*.wav or labels of a CSV"
        )
    folds = [row["fold"] for row in rows if row["fold"] is not None]
    if folds and len(folds) < len(rows):
        raise UserError(f"{place}: {len(rows) - len(folds)} rows lack their fold")
    first = min(folds, default=1)
    if first == 0:
        last = max(folds)
        _log.info("folds 0 to %d of %s are folds 1 to %d here", last, place, last + 1)
    for row in rows:
        row["fold"] = 0 if row["fold"] is None else row["fold"] + (first == 0)
    return rows


def _names(row: dict[str, Any], has_tags: bool) -> tuple[str, ...]:
    """The class of a row, or its tags, sorted and each once.

    Raises:
      UserError: a row of a table without tags lacks its label.
    """
    names, is_listed = row["label"], "line" in row
    if isinstance(names, str) and not (has_tags and is_listed):
        if is_listed and not names:
            raise csv_tables.lacking_value(*row["line"], "label")
        return (_class_name(names),)
    if isinstance(names, str):
        names = names.split(_SEPARATOR)
    names = map(str.strip, names)
    return tuple(sorted({_class_name(name) for name in names if name}))


def _class_name(label: str) -> str:
    """A class name in one Unicode form; bytes that are not UTF-8 are escaped."""
    return unicodedata.normalize("NFC", _printable(label))


def _printable(name: str) -> str:
    """A name with bytes that are not UTF-8 escaped."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _without_repeats(rows: list[dict[str, Any]], place: Path) -> list[dict[str, Any]]:
    """Each file once.

    Raises:
      UserError: a file with two labels, splits, folds or groups.
    """
    kept: dict[str, dict[str, Any]] = {}
    repeats = 0
    for row in rows:
        name = os.path.normpath(row["path"])
        other = kept.setdefault(name, row)
        for key in ("label", "split", "fold", "group"):
            if other[key] != row[key]:
                first, again = (
                    _SEPARATOR.join(r[key]) if key == "label" else r[key]
                    for r in (other, row)
                )
                raise UserError(
                    f"{place}: {row['path']} is listed with the {key} {first} and "
                    f"again with the {key} {again}"
                )
        repeats += other is not row
    if repeats:
        _log.warning("%s: %d rows repeat a file and are read once", place, repeats)
    return list(kept.values())


def _index(
    rows: list[dict[str, Any]], place: Path, left_out: LeftOut, has_tags: bool
) -> Recordings:
    class_names = tuple(sorted(set().union(*(row["label"] for row in rows))))
    base = place if place.is_dir() else place.parent
    paths = [row["path"] for row in rows]
    column = lambda name, dtype: np.array([row[name] for row in rows], dtype)
    labels = tags.multi_hot([row["label"] for row in rows], class_names)
    if not has_tags:
        labels = labels.argmax(1).astype(np.int32)
    names = tuple(
        _printable(str(path.relative_to(base) if path.is_relative_to(base) else path))
        for path in paths
    )
    groups = identical.grouped(paths, names, column("group", str), labels)
    return Recordings(
        class_names=class_names,
        names=names,
        labels=labels,
        splits=column("split", str),
        folds=column("fold", np.int32),
        groups=groups,
        load=_Decoder(paths),
        read_headers=lambda: audio.headers(paths),
        left_out=left_out.rows(),
    )


class _Decoder:
    """index -> decoded recording; a class, so that it can be pickled."""

    def __init__(self, paths: list[Path]):
        self._paths = paths

    def __call__(self, index: int) -> Decoded:
        return audio.decode(self._paths[index])
