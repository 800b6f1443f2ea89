"""Tables of recordings, and what their columns mean.

The names and values of labels, splits, folds and groups are defined here for all
readers: CSV and JSON Lines, Parquet files, names of folders and files, and TFDS.
"""

import ast
import collections
import csv
import dataclasses
import io
import json
import logging
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiodd_jax.data.recordings import TEST, TRAIN, VALIDATION, Clip
from audiodd_jax.errors import UserError

_log = logging.getLogger(__name__)

# Other names of the columns, the preferred first.
ALIASES = {
    "path": ("file_name", "filename", "file", "filepath", "file_path", "audio"),
    "label": ("class", "category", "class_name", "labels", "tags"),
    "split": ("subset", "partition"),
    "fold": (),
    "group": ("speaker", "speaker_id"),
    "start": ("onset", "begin", "start_time", "begin_time"),
    "end": ("offset", "stop", "end_time", "stop_time"),
    "duration": (),
}
# Units in names of columns, such as "Begin Time (s)", and others than seconds.
_SECONDS = re.compile(r"_[(\[]?(?:s|secs?|seconds?)[)\]]?$")
_NOT_SECONDS = re.compile(r"_[(\[]?(?:ms|msecs?|milliseconds?|samples?|frames?)[)\]]?$")
# Names of columns of tags, which are read if there is no other column of labels.
_PLURAL = ("labels", "tags")
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
    "evaluation": TEST,
}
_FOLD = r"fold[ _-]?(\d{1,4})"
MAX_FOLD = 9999
# Suffixes of tables of JSON objects, one a line.
JSON_LINES = (".jsonl", ".ndjson")
# Between the tags of a clip, or after each of them.
TAG_SEPARATOR = ";"
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
# What libraries write for a cell without a value. "none" may be a class.
_NO_VALUE = frozenset(("nan", "<na>"))
_UNKNOWN = _NO_VALUE | {"none", "null"}
_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table, by canonical column name; errors name the table and row."""

    table: Path
    line: int
    cells: Mapping[str, Any]
    unit: str = "line"  # that is counted
    # Split and fold in the names of the file and its folders, for empty cells.
    place: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sound: Path | None = None  # the recording, if the table holds it
    name: str = ""  # of the recording, if the table holds it

    def __getitem__(self, column: str) -> str:
        """The value of a column as text, which may be empty."""
        value = plain(self.cells.get(column))
        if column not in ("split", "fold", "group"):
            return value
        # Columns of numbers become decimal numbers where a cell is empty.
        value = re.sub(r"(\d+)\.0+", r"\1", value) if _is_decimal(value) else value
        return "" if value.lower() in _UNKNOWN else value

    @property
    def split(self) -> str:
        """The canonical name of the split, or an empty one; refuses other words."""
        word = self["split"].lower()
        if word and not split_name(word):
            raise self.error(f"the split is train, validation or test, not {word}")
        return split_name(word) or self.place.get("split", "")

    @property
    def fold(self) -> int | None:
        """The number of the fold, or None if none is given; refuses other words."""
        text = self["fold"].lower()
        if not text:
            return self.place.get("fold")
        text = {"false": "0", "true": "1"}.get(text, text)
        number = text.removeprefix("fold").lstrip(" _-") if text[0] == "f" else text
        if not (number.isascii() and number.isdecimal()) or int(number) > MAX_FOLD:
            raise self.error(f"the fold is a number up to {MAX_FOLD}, not {text!r}")
        return int(number)

    @property
    def label(self) -> str | list[str] | tuple[str]:
        """The label as text, the tags of a list, or the exact name of a class."""
        value = self.cells.get("label", self.cells.get("labels"))
        if isinstance(value, Mapping):
            return (plain(value.get("name")),)
        if not isinstance(value, list):
            text = plain(value)
            return "" if text.lower() in _NO_VALUE else _listed(text)
        if any(isinstance(item, Mapping | list) for item in value):
            raise self.error("the items of its label are no names of tags")
        return list(map(plain, value))

    def clip(self, path: Path, labels: tuple[str, ...]) -> Clip:
        """The clip of a sound file with the row's split, fold and group."""
        start, seconds = self.span
        return Clip(
            *(path, labels, self.name, self.split, self.fold, self["group"]),
            start=start,
            seconds=seconds,
            row=self.where,
        )

    @property
    def where(self) -> str:
        """The table and row, in words."""
        return f"{self.table}, {self.unit} {self.line}"

    @property
    def span(self) -> tuple[float, float]:
        """The start and length of a segment in seconds; (0, 0) is a whole recording."""
        start, end, duration = map(self._seconds, ("start", "end", "duration"))
        if start is None and end is None:
            return 0.0, 0.0
        if start is not None and end is None and duration is not None:
            end = start + duration
        if start is None or end is None:
            raise self.error("a segment has a start, and an end or a duration")
        if end == start:
            raise self.error(f"the label at {start:g} s is a point: give it an end")
        if end < start:
            raise self.error(f"the end {end:g} s is before the start {start:g} s")
        return start, end - start

    def _seconds(self, column: str) -> float | None:
        """A time in seconds, or None if none is given; refuses other words."""
        text = self[column]
        try:
            value = float(text) if text else None
        except ValueError:
            value = math.nan
        if value is not None and not 0 <= value < math.inf:
            raise self.error(f"the {column} is a number of seconds, not {text!r}")
        return value

    def check(self, column: str) -> None:
        """Refuses a row without a value in ``column``."""
        if not (self.label if column == "label" else self[column]):
            raise UserError(f"{self.where} lacks its {column}")

    def error(self, reason: str) -> UserError:
        """The error of this row for a reason."""
        return UserError(f"{self.where}: {reason}")


def plain(value: Any) -> str:
    """A value of any type as text: whole numbers without a point, no value as ""."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text.strip()


def _is_decimal(text: str) -> bool:
    return re.fullmatch(r"\d+\.0+", text, re.ASCII) is not None


def _listed(text: str) -> str | list[str]:
    """The items of a list as Python, NumPy or JSON write it, or the text itself.

    A single word in brackets, such as ``[noise]``, is a name.
    """
    array = r"array\((.*?)(?:, *dtype=\w+)?\)"
    found = re.fullmatch(array, text, re.DOTALL)
    text = found[1] if found else text
    match = re.fullmatch(r"([\[({])(.*)[\])}]", text, re.DOTALL)
    if not match:
        return text
    bracket, inside = match[1], match[2].strip()
    if re.fullmatch(rf"{_QUOTED}(?:[\s,]+{_QUOTED})*,?", inside):
        return [ast.literal_eval(item) for item in re.findall(_QUOTED, inside)]
    if bracket != "[":
        return text
    if re.fullmatch(r"[-\d.\s,]*", inside):
        return re.findall(r"[^\s,]+", inside)
    return inside.split(",") if "," in inside else text


def split_name(text: str) -> str:
    """The canonical name of a split; empty if ``text`` is not a split."""
    return _SPLITS.get(text.lower(), "")


def named_part(name: str) -> dict[str, Any]:
    """The ``split`` or ``fold`` that a folder or file is named after, if any."""
    if fold := re.fullmatch(_FOLD, name, re.IGNORECASE):
        return {"fold": int(fold[1])}
    return {"split": split} if (split := split_name(name)) else {}


def part_in(name: str) -> dict[str, Any]:
    """The split or fold in a name as on the Hub: ``NAME_train``, ``partial-train``.

    Raises:
      UserError: several splits.
    """
    found = {split_name(word) for word in re.split(r"[^A-Za-z]+", name)} - {""}
    if len(found) > 1:
        raise UserError(
            f"the name {name!r} has the splits {' and '.join(sorted(found))}: rename it"
        )
    fold = re.search(rf"(?<![a-z]){_FOLD}(?!\d)", name, re.IGNORECASE)
    part = {"fold": int(fold[1])} if fold else {}
    return {"split": found.pop(), **part} if found else part


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


def columns_of(table: Path, header: Iterable[str]) -> dict[str, str]:
    """Maps canonical names to a table's columns, whatever their case.

    Raises:
      UserError: two columns of one name, or two that could be meant by one.
    """
    named = collections.defaultdict(list)
    for column in header:
        name = re.sub(r"[\s-]+", "_", column.strip().lower())
        named[_SECONDS.sub("", name)].append(column)
        times = ("start", *ALIASES["start"], "end", *ALIASES["end"])
        if _NOT_SECONDS.search(name) and _NOT_SECONDS.sub("", name) in times:
            _log.warning("%s: %s is not used; times are in seconds", table.name, column)
    result, choices = {}, []
    for canonical, aliases in ALIASES.items():
        found = [name for name in (canonical, *aliases) if name in named]
        if not found:
            continue
        if len(same := named[found[0]]) > 1:
            raise UserError(
                f"{table} has the columns {' and '.join(same)}, which are one name: "
                f"rename all but one of them"
            )
        rivals = [name for name in found if name not in _PLURAL] or found
        if len(rivals) > 1 and rivals[0] != canonical and canonical != "group":
            raise UserError(
                f"{table}: {' and '.join(rivals)} could both be the column "
                f"{canonical}; rename one of them to {canonical}"
            )
        column = named[rivals[0]][0]
        key = "labels" if rivals[0] in _PLURAL else canonical
        result[key] = column
        others = ", ".join(named[name][0] for name in found if name != rivals[0])
        if others:
            choices.append(f"{canonical} is {column}, not {others}")
        elif column != canonical:
            choices.append(f"{column} as {canonical}")
    has_duration = "duration" in result and "start" not in result
    if has_duration and result.get("end", "").strip().lower() == "offset":
        # An offset next to a duration is where the segment starts.
        result["start"] = result.pop("end")
    if choices:
        _log.info("reading %s: %s", table.name, "; ".join(choices))
    return result


def read_any(table: Path, place: Mapping[str, Any]) -> list[Row]:
    """Reads a table of recordings: CSV, or JSON Lines by its suffix.

    ``place`` is the split or fold that its folder is named after.
    """
    if table.suffix.lower() in JSON_LINES:
        rows = _json_lines(table)
    else:
        rows = read(table, ("path", "label"), ("label",), has_aliases=True)
    return [dataclasses.replace(row, place=place) for row in rows]


def _json_lines(table: Path) -> list[Row]:
    """Reads an object per line, by canonical column name."""
    rows: list[Row] = []
    columns: dict[tuple[str, ...], dict[str, str]] = {}
    for line, text in enumerate(table.read_bytes().splitlines(), start=1):
        if not text.strip():
            continue
        try:
            values = json.loads(text)
            keys = tuple(values.keys())
        except (ValueError, AttributeError) as error:
            raise UserError(f"{table}, line {line} is no JSON object") from error
        names = columns.get(keys) or columns.setdefault(keys, columns_of(table, keys))
        row = Row(table, line, {name: values[key] for name, key in names.items()})
        row.check("path")
        rows.append(row)
    return rows


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
        lines = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=separator,
            skipinitialspace=True,
            strict=True,
        )
        header = [name.strip() for name in next(lines, [])]
        found = columns_of(table, header) if has_aliases else {}
        canonical = {column: name for name, column in found.items()}
        names = [canonical.get(column, column) for column in header]
        rows = []
        for cells in lines:
            row = Row(table, lines.line_num, dict(zip(names, cells, strict=False)))
            if any(map(str.strip, cells[len(names) :])):
                raise row.error(
                    f"it has {len(cells)} cells, and the header {len(names)}; double "
                    f"quotes enclose a cell with {_SEPARATORS[separator]}"
                )
            if cells:
                rows.append(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table} is not a CSV in UTF-8 ({error})") from error
    have = {"label" if name == "labels" else name for name in names}
    if lacking := [name for name in columns if name not in {*have, *names}]:
        raise UserError(
            f"{table} lacks the column {' and '.join(lacking)}; it has "
            f"{', '.join(header) or 'none'}"
        )
    if separator != ",":
        _log.info("reading %s: separated by %s", table.name, _SEPARATORS[separator])
    for row in rows:
        for name in columns:
            if name not in may_be_empty:
                row.check(name)
    return rows
