"""Tables in three formats, and the one of budgets."""

import csv
import importlib
import io
import sys
from pathlib import Path

import pytest

from audiodd_jax.report import tables
from audiodd_jax.report.tables import Table

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
ODD = Table(["what", "accuracy (%)", "none"], [["a|b & c_d", "97.3 ± 0.5", ""]])


def test_markdown_has_a_cell_a_column():
    assert tables.markdown(ODD).splitlines() == [
        "| what       | accuracy (%)   | none   |",
        "|------------|----------------|--------|",
        "| a\\|b & c_d | 97.3 ± 0.5     |        |",
    ]


def test_csv_reads_back():
    text = tables.comma_separated(ODD)
    assert list(csv.reader(io.StringIO(text))) == [list(ODD.columns), *ODD.rows]


def test_latex_escapes_what_it_must():
    text = tables.latex(ODD)
    assert r"a|b \& c\_d" in text
    assert r"accuracy (\%)" in text
    assert "97.3 ± 0.5" in text


def test_empty_columns_are_dropped():
    assert ODD.without_empty_columns() == Table(
        ["what", "accuracy (%)"], [["a|b & c_d", "97.3 ± 0.5"]]
    )


def test_all_three_are_written(tmp_path):
    tables.write(ODD, tmp_path / "deep" / "v0.1")
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == [
        "v0.1.csv",
        "v0.1.md",
        "v0.1.tex",
    ]


@pytest.fixture
def budget_table(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    yield importlib.import_module("budget_table")
    sys.modules.pop("budget_table")


def test_budgets_by_hand(budget_table):
    """50 of 2,000 clips are 2.5 %; 80,000 bytes are a fiftieth of 4,000,000."""
    rows = [
        budget_table.Row("max_entropy", "20 %", 400, 800_000, (0.5, 0.7), (10.0, 20.0)),
        budget_table.Row(
            "RFAD", "5 per class", 50, 80_000, published=72.24, published_label="0.3 %"
        ),
    ]
    found = budget_table.table(rows, 2_000, 10, 4_000_000)
    first, second = (dict(zip(found.columns, row, strict=True)) for row in found.rows)
    assert first == {
        "learns from": "max entropy",
        "budget": "20 %",
        "clips": "400",
        "clips per class": "40",
        "of train (%)": "20",
        "bytes": "800,000",
        "raw audio / bytes": "5",
        "accuracy (%)": "60.0 ± 14.1",
        "seeds": "2",
        "s per seed": "15",
        "published (%)": "",
        "published as": "",
    }
    assert second["accuracy (%)"] == "not run"
    assert second["of train (%)"] == "2.5"
    assert second["raw audio / bytes"] == "50"
    assert (second["published (%)"], second["published as"]) == ("72.24", "0.3 %")


def test_a_matrix_by_hand(budget_table):
    rows = [
        budget_table.Row("all clips", "all", 1_800, 1, (1.0,)),
        budget_table.Row("bald", "20 %", 400, 1, (0.5, 0.7)),
        budget_table.Row("bald", "5 per class", 50, 1),
        budget_table.Row("RFAD", "5 per class", 50, 1, (0.9,)),
    ]
    assert budget_table.matrix(rows, 2_000) == Table(
        [
            "learns from",
            "all (1,800 clips, 90 %)",
            "20 % (400 clips)",
            "5 per class (50 clips, 2.5 %)",
        ],
        [
            ["all clips", "100.0", "", ""],
            ["bald", "", "60.0 ± 14.1", "not run"],
            ["RFAD", "", "", "90.0"],
        ],
    )


def test_csv_cells_are_never_formulas():
    rows = [["=1+1", "-1.5"], ["@x", "+3"], ["-x", "1"]]
    text = tables.comma_separated(Table(["a", "b"], rows))
    assert text.splitlines()[1:] == ["'=1+1,-1.5", "'@x,+3", "'-x,1"]
