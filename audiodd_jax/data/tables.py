"""CSV tables of recordings, and what their columns mean.

The names and values of labels, splits, folds and groups are defined here for all
readers: tables, Parquet files, names of folders and files, and TFDS.
"""

import csv
import dataclasses
import io
import logging
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiodd_jax.data.recordings import TEST, TRAIN, VALIDATION, Clip
from audiodd_jax.errors import UserError

_log = logging.getLogger(__name__)

# Other names of the columns.
ALIASES = {
    "path": ("file_name", "filename", "file", "filepath", "file_path", "audio"),
    "label": ("class", "category", "class_name"),
    "split": ("subset", "partition"),
    "fold": (),
    "group": ("speaker", "speaker_id"),
}
_SPLITS = {
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
_FOLD = re.compile(r"fold[ _-]?(\d{1,4})", re.IGNORECASE)
MAX_FOLD = 9999
# Between the tags of a clip, or after each of them.
TAG_SEPARATOR = ";"
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table, by canonical column name; errors name the table and line."""

    table: Path
    line: int
    cells: Mapping[str, str | None]

    def __getitem__(self, column: str) -> str:
        """The stripped value of a column; empty if the table lacks the column."""
        return (self.cells.get(column) or "").strip()

    @property
    def split(self) -> str:
        """The canonical name of the split, or an empty one; refuses other words."""
        word = self["split"].lower()
        if word and not split_name(word):
            raise self._error(f"the split is train, validation or test, not {word}")
        return split_name(word)

    @property
    def fold(self) -> int | None:
        """The number of the fold, or None if none is given; refuses other words."""
        text = self["fold"]
        if not text:
            return None
        if not (text.isascii() and text.isdecimal()) or int(text) > MAX_FOLD:
            raise self._error(f"the fold is a number up to {MAX_FOLD}, not {text!r}")
        return int(text)

    def labels(self, has_tags: bool) -> tuple[str, ...]:
        """The tags, sorted and without repeats, or the class, which must be given."""
        if has_tags:
            return label_names(self["label"].split(TAG_SEPARATOR))
        self.check("label")
        return label_names([self["label"]])

    def clip(self, path: Path, has_tags: bool) -> Clip:
        """The clip of a sound file with the row's label, split, fold and group."""
        return Clip(
            path=path,
            labels=self.labels(has_tags),
            split=self.split,
            fold=self.fold,
            group=self["group"],
        )

    def check(self, column: str) -> None:
        """Refuses a row without a value in ``column``."""
        if not self[column]:
            raise UserError(f"{self.table}, line {self.line} lacks its {column}")

    def _error(self, reason: str) -> UserError:
        return UserError(f"{self.table}, line {self.line}: {reason}")


def split_name(text: str) -> str:
    """The canonical name of a split; empty if ``text`` is not a split."""
    return _SPLITS.get(text.lower(), "")


def named_part(name: str) -> dict[str, Any]:
    """The ``split`` or ``fold`` that a folder or file is named after, if any."""
    if fold := _FOLD.fullmatch(name):
        return {"fold": int(fold[1])}
    return {"split": split} if (split := split_name(name)) else {}


def printable(name: str) -> str:
    """Escapes the bytes of a file name that are not UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def label_name(text: str) -> str:
    """A label in one Unicode form; bytes that are not UTF-8 are escaped."""
    return unicodedata.normalize("NFC", printable(text))


def label_names(texts: Iterable[str]) -> tuple[str, ...]:
    """The labels of a clip, sorted, without repeats and empty ones."""
    stripped = map(str.strip, texts)
    return tuple(sorted({label_name(text) for text in stripped if text}))


def label_cell(label: Any, names: Sequence[str]) -> str:
    """The cell for ``Row.labels`` of this label or list; numbers become names."""
    if isinstance(label, list):
        tags = [f"{label_cell(tag, names)}{TAG_SEPARATOR}" for tag in label]
        return "".join(tags) or TAG_SEPARATOR
    return names[label] if names and isinstance(label, int) else str(label)


def columns_named(canonical: str, columns: Iterable[str]) -> list[str]:
    """The columns that could be ``canonical``, the most likely first."""
    columns = set(columns)
    return [name for name in (canonical, *ALIASES[canonical]) if name in columns]


def read(
    table: Path,
    columns: Sequence[str],
    may_be_empty: Sequence[str] = (),
    has_aliases: bool = False,
) -> list[Row]:
    """Reads a CSV in UTF-8, separated by commas, semicolons or tabs.

    Every row must have a value in all ``columns`` but those in ``may_be_empty``. With
    ``has_aliases``, columns may have the names in ``ALIASES``.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
        head = text.split("\n", 1)[0]
        separator = max(_SEPARATORS, key=head.count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
        header = [name.strip() for name in reader.fieldnames or []]
        renamed = _renamed(table, header) if has_aliases else {}
        reader.fieldnames = [renamed.get(name, name) for name in header]
        rows = [Row(table, line, cells) for line, cells in enumerate(reader, start=2)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table} is not a CSV in UTF-8 ({error})") from error
    if lacking := [name for name in columns if name not in reader.fieldnames]:
        raise UserError(
            f"{table} lacks the column {' and '.join(lacking)}; it has "
            f"{', '.join(header) or 'none'}"
        )
    if renamed or separator != ",":
        how = [f"{old} as {new}" for old, new in renamed.items()]
        if separator != ",":
            how.append(f"separated by {_SEPARATORS[separator]}")
        _log.info("reading %s: %s", table.name, ", ".join(how))
    for row in rows:
        for name in columns:
            if name not in may_be_empty:
                row.check(name)
    return rows


def _renamed(table: Path, header: Sequence[str]) -> dict[str, str]:
    """Maps columns to canonical names; refuses several columns for one name."""
    result = {}
    lower = {name.lower(): name for name in header}
    for canonical in ALIASES:
        if canonical in header:
            continue
        matches = [lower[name] for name in columns_named(canonical, lower)]
        if len(matches) > 1:
            raise UserError(
                f"{table}: {' and '.join(matches)} could both be the column "
                f"{canonical}; rename one of them to {canonical}"
            )
        result |= dict.fromkeys(matches, canonical)
    return result
