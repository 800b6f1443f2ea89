"""Tables of results, written as Markdown, CSV and LaTeX."""

import csv
import io
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tabulate

from audiodd_jax.features.metric import ACCURACY
from audiodd_jax.runtime.files import write_atomically


class Table(NamedTuple):
    """Cells of text under their headings.

    Attributes:
      columns: the headings.
      rows: one cell per column each.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def without_empty_columns(self) -> "Table":
        """Returns the table without columns whose cells are all empty."""
        columns = range(len(self.columns))
        return self._pick([i for i in columns if any(row[i] for row in self.rows)])

    def without_column(self, name: str) -> "Table":
        """Returns the table without the column of this heading."""
        return self._pick([i for i, head in enumerate(self.columns) if head != name])

    def _pick(self, indices: Sequence[int]) -> "Table":
        pick = lambda cells: [cells[i] for i in indices]
        return Table(pick(self.columns), [pick(row) for row in self.rows])


def metric_of(results: Iterable[Mapping[str, Any]]) -> str:
    """What the scores of some results are, in words: accuracy, where none says."""
    names = dict.fromkeys(result.get("measure", ACCURACY) for result in results)
    return " or ".join(names) or ACCURACY


def markdown(table: Table) -> str:
    """The table as Markdown (a pipe table), with aligned columns."""
    cell = lambda text: text.replace("|", "\\|").replace("\n", " ")
    row = lambda cells: list(map(cell, cells))
    return tabulate.tabulate(
        list(map(row, table.rows)),
        row(table.columns),
        tablefmt="github",
        disable_numparse=True,
    )


def comma_separated(table: Table) -> str:
    """The table as CSV, with a header row."""
    text = io.StringIO()
    rows = [[_no_formula(cell) for cell in row] for row in (table.columns, *table.rows)]
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _no_formula(cell: str) -> str:
    """A cell that spreadsheets do not compute."""
    is_formula = cell[:1] in ("=", "@") or (cell[:1] in ("+", "-") and len(cell) > 1)
    is_number = re.fullmatch(r"[+-]?[\d.,]+( ± [\d.]+)?", cell)
    return f"'{cell}" if is_formula and not is_number else cell


def latex(table: Table) -> str:
    """The table as a LaTeX ``tabular`` (package booktabs)."""
    return tabulate.tabulate(
        table.rows, table.columns, tablefmt="latex_booktabs", disable_numparse=True
    )


def mean_std(accuracies: Sequence[float]) -> str:
    """Mean ± sample standard deviation in %; a single value without deviation."""
    mean = f"{100 * statistics.fmean(accuracies):.1f}"
    if len(accuracies) < 2:
        return mean
    return f"{mean} ± {100 * statistics.stdev(accuracies):.1f}"


def stem(title: str) -> str:
    """A file name without suffix, from a title."""
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
