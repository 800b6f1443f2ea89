"""Tables in which recordings are listed."""

import csv
from collections.abc import Sequence
from pathlib import Path

from audiodd_jax.runtime.errors import UserError


def read(table: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV with at least ``columns``, each of which has a value.

    Raises:
      UserError: no CSV in UTF-8, or a column or a value that is missing.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            found = reader.fieldnames or []
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table} is not a CSV in UTF-8 ({error})") from error
    lacking = [name for name in columns if name not in found]
    if lacking:
        raise UserError(
            f"{table} lacks the column {' and '.join(lacking)}; it has "
            f"{', '.join(found) or 'none'}"
        )
    for line, row in enumerate(rows, start=2):
        for name in columns:
            if not row[name]:
                raise UserError(f"{table}, line {line} lacks its {name}")
    return rows


def fold_number(text: str, table: Path, line: int) -> int:
    """A fold's number from 1; 0 where there is none.

    Raises:
      UserError: something else.
    """
    text = text.strip() or "0"
    if not text.isdigit():
        raise UserError(f"{table}, line {line}: the fold is a number, not {text!r}")
    return int(text)
