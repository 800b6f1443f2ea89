"""Tables of results, written as Markdown, CSV and LaTeX."""

import csv
import io
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tabulate

from audiodd_jax.features.metric import ACCURACY, BALANCED_ACCURACY
from audiodd_jax.runtime.files import write_atomically


class Table(NamedTuple):
    """Cells of text: headings, and rows with one cell per column."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def without_empty_columns(self) -> "Table":
        """Returns the table without columns whose cells are all empty."""
        columns = range(len(self.columns))
        kept = [i for i in columns if any(row[i] for row in self.rows)]
        pick = lambda cells: [cells[i] for i in kept]
        return Table(pick(self.columns), [pick(row) for row in self.rows])


def from_records(records: Sequence[Mapping[str, str]]) -> Table:
    """Returns a table of rows that map headings to cells."""
    columns = list(dict.fromkeys(name for record in records for name in record))
    cells = lambda record: [record.get(name, "") for name in columns]
    return Table(columns, list(map(cells, records)))


def metric_of(results: Iterable[Mapping[str, Any]]) -> str:
    """Returns the metric of results in words; it is accuracy where none is named."""
    names = dict.fromkeys(result.get("measure", ACCURACY) for result in results)
    return " or ".join(names) or ACCURACY


def bytes_in_words(result: Mapping[str, Any]) -> str:
    """Describes the bytes of a coreset, of images and labels apart."""
    parts = ""
    if "file_bytes" in result:  # not of an earlier version
        parts = (
            f" ({result['image_bytes']:,} of images in {result['storage']}, "
            f"{result['label_bytes']:,} of labels; the file has "
            f"{result['file_bytes']:,})"
        )
    return f"{result['bytes']:,}{parts}, of {result['train_bytes']:,} of raw audio"


def per_class(result: Mapping[str, Any]) -> str:
    """Returns the number of spectrograms of a class in words, such as ``3 to 20``."""
    sizes = result.get("class_sizes", {}).values()
    if len(set(sizes)) > 1:
        return f"{min(sizes):,} to {max(sizes):,}"
    mean = result["samples_per_class"]
    return f"{mean}" if mean == int(mean) else f"on average {mean}"


def means(result: Mapping[str, Any]) -> dict[str, float]:
    """Returns the mean scores of a result on the test split, by field."""
    names = [name for name in result if re.search("test_.*accuracy$|macro_f1$", name)]
    return {name: result[name] for name in names}


def beside(results: Sequence[Mapping[str, Any]], prefix: str = "") -> dict[str, str]:
    """Returns the mean scores of results other than their metric, by name."""
    is_balanced = metric_of(results) == BALANCED_ACCURACY
    name = ACCURACY if is_balanced else BALANCED_ACCURACY
    has = lambda field: all(prefix + field in result for result in results)
    mean = lambda field: statistics.fmean(row[prefix + field] for row in results)
    found = {}
    if has("test_balanced_accuracy"):  # not of tags, nor of an earlier version
        field = f"test_{name.replace(' ', '_')}"
        found[f"{name} (%)"] = f"{100 * mean(field):.1f}"
    if has("macro_f1"):
        found["macro F1"] = f"{mean('macro_f1'):.3f}"
    return found


def markdown(table: Table) -> str:
    """Returns the table as a Markdown pipe table with aligned columns."""
    escape = lambda cells: [c.replace("|", "\\|").replace("\n", " ") for c in cells]
    return tabulate.tabulate(
        list(map(escape, table.rows)),
        escape(table.columns),
        tablefmt="github",
        disable_numparse=True,
    )


def comma_separated(table: Table) -> str:
    """Returns the table as CSV with a header row."""
    text = io.StringIO()
    rows = [[_no_formula(cell) for cell in row] for row in (table.columns, *table.rows)]
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _no_formula(cell: str) -> str:
    """Quotes a cell that a spreadsheet would evaluate as a formula."""
    is_formula = cell[:1] in ("=", "@") or (cell[:1] in ("+", "-") and len(cell) > 1)
    is_number = re.fullmatch(r"[+-]?[\d.,]+( ± [\d.]+)?", cell)
    return f"'{cell}" if is_formula and not is_number else cell


def latex(table: Table) -> str:
    """Returns the table as a LaTeX ``tabular``; it needs the package booktabs."""
    return tabulate.tabulate(
        table.rows, table.columns, tablefmt="latex_booktabs", disable_numparse=True
    )


def mean_std(accuracies: Sequence[float]) -> str:
    """Formats mean ± sample standard deviation in %; a single value stands alone."""
    mean = f"{100 * statistics.fmean(accuracies):.1f}"
    if len(accuracies) < 2:
        return mean
    return f"{mean} ± {100 * statistics.stdev(accuracies):.1f}"


def spread(values: Sequence[float]) -> str:
    """Returns the mean and range of errors as text."""
    mean = statistics.fmean(values)
    return f"{mean:.3f} ({min(values):.3f} to {max(values):.3f})"


def stem(title: str) -> str:
    """Turns a title into a file name without suffix."""
    return re.sub(r"[^\w]+", "_", title.lower()).strip("_")


def write(table: Table, stem: Path) -> None:
    """Writes ``stem.md``, ``stem.csv`` and ``stem.tex``."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    formats = {".md": markdown, ".csv": comma_separated, ".tex": latex}
    for suffix, render in formats.items():
        text = render(table).rstrip("\n") + "\n"
        write_atomically(stem.with_name(stem.name + suffix), text)
