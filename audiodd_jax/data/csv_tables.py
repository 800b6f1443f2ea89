"""CSV tables of recordings, in their usual spellings."""

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from audiodd_jax.errors import UserError

_log = logging.getLogger(__name__)

MAX_FOLD = 9999
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


def read(
    table: Path,
    columns: Sequence[str],
    aliases: Mapping[str, Sequence[str]] | None = None,
    may_be_empty: Sequence[str] = (),
) -> list[dict[str, str]]:
    """The rows of a CSV with at least ``columns``, each of which has a value.

    Columns may be separated by commas, semicolons or tabs.

    Args:
      table: of UTF-8 text.
      columns: required.
      aliases: other names of columns; rows have the canonical name.
      may_be_empty: columns of which some values may be empty.

    Raises:
      UserError: not a CSV in UTF-8, or a missing column or value.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
        head = text.split("\n", 1)[0]
        separator = max(_SEPARATORS, key=head.count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
        found = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = found
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table} is not a CSV in UTF-8 ({error})") from error
    renamed = _renamed(table, found, aliases or {})
    names = [renamed.get(name, name) for name in found]
    if lacking := [name for name in columns if name not in names]:
        raise UserError(
            f"{table} lacks the column {' and '.join(lacking)}; it has "
            f"{', '.join(found) or 'none'}"
        )
    if renamed or separator != ",":
        how = [f"{old} as {new}" for old, new in renamed.items()]
        if separator != ",":
            how.append(f"separated by {_SEPARATORS[separator]}")
        _log.info("reading %s: %s", table.name, ", ".join(how))
    result = []
    for line, row in enumerate(rows, start=2):
        row = {renamed.get(name, name): value for name, value in row.items()}
        for name in columns:
            if not (row[name] or "").strip() and name not in may_be_empty:
                raise lacking_value(table, line, name)
        result.append(row)
    return result


def lacking_value(table: Path, line: int, name: str) -> UserError:
    """The error of a row without a value in the column ``name``."""
    return UserError(f"{table}, line {line} lacks its {name}")


def _renamed(
    table: Path, found: Sequence[str], aliases: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Columns whose names are aliases, with their canonical names.

    Raises:
      UserError: several columns could be meant.
    """
    result = {}
    lower = {name.lower(): name for name in found}
    for canonical, others in aliases.items():
        if canonical in found:
            continue
        matches = [lower[name] for name in (canonical, *others) if name in lower]
        if len(matches) > 1:
            raise UserError(
                f"{table}: {' and '.join(matches)} could both be the column "
                f"{canonical}; rename one of them to {canonical}"
            )
        result |= dict.fromkeys(matches, canonical)
    return result


def fold_number(text: str, table: Path, line: int) -> int | None:
    """The number of a fold, or None for an empty cell.

    Raises:
      UserError: something else, or a number over ``MAX_FOLD``.
    """
    text = text.strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()) or int(text) > MAX_FOLD:
        raise UserError(
            f"{table}, line {line}: the fold is a number up to {MAX_FOLD}, not {text!r}"
        )
    return int(text)
