"""Tables of results, written as Markdown, CSV and LaTeX."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import tabulate

from audiodd_jax.runtime.files import write_atomically


class Table(NamedTuple):
    """Cells of text under their headings.

    Attributes:
      columns: the headings.
      rows: a cell a column each.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def without_empty_columns(self) -> "Table":
        """The table less the columns in which no row has anything."""
        kept = [i for i in range(len(self.columns)) if any(row[i] for row in self.rows)]
        pick = lambda cells: [cells[i] for i in kept]
        return Table(pick(self.columns), [pick(row) for row in self.rows])


def markdown(table: Table) -> str:
    """The table as Markdown (a pipe table)."""
    cell = lambda text: text.replace("|", "\\|").replace("\n", " ")
    line = lambda cells: "| " + " | ".join(map(cell, cells)) + " |"
    rule = "|---" * len(table.columns) + "|"
    return "\n".join([line(table.columns), rule, *map(line, table.rows)])


def comma_separated(table: Table) -> str:
    """The table as CSV, its headings first."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.columns, *table.rows])
    return text.getvalue()


def latex(table: Table) -> str:
    """The table as LaTeX's ``tabular`` (with the package booktabs)."""
    return tabulate.tabulate(
        table.rows, table.columns, tablefmt="latex_booktabs", disable_numparse=True
    )


def stem(title: str) -> str:
    """A title as a file name without an ending."""
    return re.sub(r"[^\w]+", "_", title.lower()).strip("_")


def write(table: Table, stem: Path) -> None:
    """Writes ``stem.md``, ``stem.csv`` and ``stem.tex``."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for ending, render in (
        (".md", markdown),
        (".csv", comma_separated),
        (".tex", latex),
    ):
        write_atomically(
            stem.with_name(stem.name + ending), render(table).rstrip("\n") + "\n"
        )
