"""Tables of recordings, and what their cells mean.

The values of labels, splits, folds and groups are defined here for all readers: CSV and
JSON Lines, Parquet files, and TFDS. ``data/columns.py`` has the names of columns, and
``data/names.py`` those of splits and folds.
"""

import ast
import codecs
import csv
import dataclasses
import io
import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiodd_jax.data.columns import ALIASES, columns_of
from audiodd_jax.data.names import part_in, plain, split_name
from audiodd_jax.data.recordings import Clip
from audiodd_jax.errors import UserError, counted

_log = logging.getLogger(__name__)

MAX_FOLD = 9999
# Suffixes of tables of JSON objects, one a line.
JSON_LINES = (".jsonl", ".ndjson")
# Between the tags of a clip, or after each of them.
TAG_SEPARATOR = ";"
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
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
        split = split_name(word) or part_in(word).get("split", "")
        if word and not split:
            raise self.error(
                f"the split is train, validation or test, not {word}; rename the "
                "column if it means something else"
            )
        return split or self.place.get("split", "")

    @property
    def fold(self) -> int | None:
        """The number of the fold, or None if none is given; refuses other words."""
        text = self["fold"].lower()
        if not text:
            return self.place.get("fold")
        text = {"false": "0", "true": "1"}.get(text, text)
        number = text.removeprefix("fold").lstrip(" _-") if text[0] == "f" else text
        if split_name(text):
            raise self.error(
                f"the fold is a number, not {text!r}: call the column split"
            )
        if not (number.isascii() and number.isdecimal()) or int(number) > MAX_FOLD:
            raise self.error(f"the fold is a number up to {MAX_FOLD}, not {text!r}")
        return int(number)

    @property
    def label(self) -> str | list[str] | tuple[str]:
        """The label as text, the tags of a list, or the exact name of a class."""
        value = self.cells.get("label", self.cells.get("labels"))
        if isinstance(value, Mapping):
            if name := plain(value.get("name")):
                return (name,)
            raise self.error("its label has no name")
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


# Suffixes of other files that hold tables, with what to do.
_NO_TEXT = (".xlsx", ".xls", ".ods", ".json", ".pkl", ".feather", ".arrow", ".h5")


def check_places(rows: list[Row]) -> None:
    """Says if columns differ from one split or fold in the names of files.

    Raises:
      UserError: the names are of several, so that neither can be right.
    """
    for name in ("split", "fold"):
        places = {row.place[name] for row in rows if name in row.place}
        for row in rows:
            place, given = row.place.get(name), getattr(row, name)
            if given == place or place is None:
                continue
            if len(places) > 1:
                raise row.error(
                    f"its {name} is {given}, but the name of its file or folder says "
                    f"{place}"
                )
            _log.warning(
                "the column %s is used, not the name of the file or folder, which says "
                "%s",
                name,
                place,
            )
            break


def fold_numbers(folds: Sequence[int | None], where: Any) -> list[int | None]:
    """Counts folds from 1; without any fold, nothing changes.

    Raises:
      UserError: some rows lack their fold.
    """
    given = [fold for fold in folds if fold is not None]
    if given and len(given) < len(folds):
        words = counted(len(folds) - len(given), "row lacks its", "rows lack their")
        raise UserError(f"{where}: {words} fold")
    if not given or min(given):
        return list(folds)
    last = max(given)
    _log.info("folds 0 to %d of %s are numbered 1 to %d", last, where, last + 1)
    return [fold + 1 for fold in given]


def read_any(
    table: Path, place: Mapping[str, Any], needs_label: bool = True
) -> list[Row]:
    """Reads a table of recordings: CSV, or JSON Lines by its suffix.

    ``place`` is the split or fold that it or its folder is named after.
    """
    suffix, columns = table.suffix.lower(), ("path", "label")[: 1 + needs_label]
    if suffix in _NO_TEXT:
        raise UserError(f"{table} cannot be read: save it as CSV, or as JSON Lines")
    if suffix in JSON_LINES:
        rows = _json_lines(table)
    else:
        rows = read(table, columns, ("label",), has_aliases=True)
    return [dataclasses.replace(row, place=place) for row in rows]


def _json_lines(table: Path) -> list[Row]:
    """Reads an object per line, by canonical column name."""
    found: list[tuple[int, dict[str, Any]]] = []
    for line, text in enumerate(_text_of(table).split("\n"), start=1):
        if text.strip():
            try:
                found.append((line, dict(json.loads(text).items())))
            except (ValueError, AttributeError) as error:
                raise UserError(f"{table}, line {line} is no JSON object") from error
    keys = dict.fromkeys(key for _, values in found for key in values)
    names = columns_of(table, keys, lambda key: (row.get(key) for _, row in found))
    rows = []
    for line, values in found:
        cells = {name: values[key] for name, key in names.items() if key in values}
        rows.append(Row(table, line, cells))
        rows[-1].check("path")
    return rows


def _text_of(table: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 if it begins with a mark of it."""
    content = table.read_bytes()
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{table} is not a CSV in UTF-8 ({error}): save it in UTF-8"
        ) from error


def header_of(table: Path) -> list[str]:
    """The names of a table's columns; none if it is no table."""
    try:
        text = _text_of(table).lstrip()
        if table.suffix.lower() in JSON_LINES:
            return list(json.loads(text.split("\n", 1)[0]))
        head = text.split("\n")[_comments(text)]
        return next(csv.reader([head], delimiter=_separator(head)), [])
    except (UserError, ValueError, TypeError, OSError, csv.Error):
        return []


def _separator(head: str) -> str:
    return max(_SEPARATORS, key=head.count)


def read(
    table: Path,
    columns: Sequence[str],
    may_be_empty: Sequence[str] = (),
    has_aliases: bool = False,
) -> list[Row]:
    """Reads a CSV in UTF-8, separated by commas, semicolons or tabs.

    Every row must have a value in all ``columns`` but those in ``may_be_empty``. With
    ``has_aliases``, columns may have the names in ``columns.ALIASES``. Lines before the
    header that begin with ``#`` are comments.
    """
    text = _text_of(table)
    skipped = _comments(text)
    text = text.split("\n", skipped)[-1]
    separator = _separator(text.split("\n", 1)[0])
    try:
        found = list(_cells(text, separator, skipped))
    except csv.Error as error:
        raise UserError(f"{table} is not a CSV in UTF-8 ({error})") from error
    header = [name.strip() for name in found.pop(0)[1]] if found else []
    places = {name: i for i, name in reversed([*enumerate(header)])}
    values = lambda name: ("".join(cells[places[name] :][:1]) for _, cells in found)
    named = {}
    if has_aliases:
        named = columns_of(table, header, values, "path" in columns)
    canonical = {column: name for name, column in named.items()}
    unused = {name: f"unused {name}" for name in ALIASES if has_aliases}
    names = [canonical.get(name, unused.get(name, name)) for name in header]
    have = {"label" if name == "labels" else name for name in names}
    if lacking := [name for name in columns if name not in {*have, *names}]:
        raise UserError(
            f"{table} lacks the column {' and '.join(lacking)}; it has "
            f"{', '.join(header) or 'none'}"
        )
    if separator != ",":
        _log.info("reading %s: separated by %s", table.name, _SEPARATORS[separator])
    rows = []
    for line, cells in found:
        row = Row(table, line, dict(zip(names, cells, strict=False)))
        if any(map(str.strip, cells[len(names) :])):
            raise row.error(
                f"it has {len(cells)} cells, and the header {len(names)}; double "
                f"quotes enclose a cell with {_SEPARATORS[separator]}"
            )
        rows.append(row)
        for name in columns:
            if name not in may_be_empty:
                row.check(name)
    return rows


def _cells(text: str, separator: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Yields the cells of each row with its line, of which some were ``skipped``."""
    lines = text.rstrip("\r\n").split("\n")
    if separator == "\t" and len({line.count("\t") for line in lines}) == 1:
        # Programs write tabs around any text, in which quotes mean nothing.
        for i, line in enumerate(lines, start=1):
            cells = [cell.strip() for cell in line.split("\t")]
            yield i + skipped, [_unquoted(cell) for cell in cells]
        return
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        skipinitialspace=True,
        strict=True,
    )
    for cells in reader:
        if cells:
            yield reader.line_num + skipped, cells


def _unquoted(cell: str) -> str:
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"') if is_quoted else cell


def _comments(text: str) -> int:
    """Counts lines above the header: with ``#`` and fewer cells, or ``sep=;``."""
    lines = text.split("\n")
    is_above = lambda line: line.startswith(("#", "sep="))
    count = next((i for i, line in enumerate(lines) if not is_above(line)), 0)
    mark = _separator(lines[count])
    has_fewer = lines[0].count(mark) < lines[count].count(mark)
    return count if has_fewer or lines[0].startswith("sep=") else 0
