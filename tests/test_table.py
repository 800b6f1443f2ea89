"""``experiments/paper_tables.py``: what stands in which row, run or not."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from absl import flags

from audiodd_jax.runtime.errors import UserError

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
DATA = SimpleNamespace(
    num_train=1600,
    num_classes=50,
    train_bytes=160_000_000,
    image_shape=(32, 64),
    name="esc50",
    train=SimpleNamespace(labels=np.zeros(1440)),
)


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(EXPERIMENTS))
    try:
        yield importlib.import_module("paper_tables")
    finally:
        sys.path.remove(str(EXPERIMENTS))
        for name in ("paper_tables", "published_results", "budget_table"):
            for flag in list(flags.FLAGS.flags_by_module_dict().get(name, ())):
                delattr(flags.FLAGS, flag.name)
            sys.modules.pop(name, None)


def rows_of(script, tmp_path, monkeypatch, *arguments, results=(), reasons=()):
    flags.FLAGS(["paper_tables", f"--workdir={tmp_path}", *arguments])
    monkeypatch.setattr(script, "loaded", lambda: DATA)
    found = script.Found()
    found.results.update(results)
    found.reasons.update(reasons)
    return {(row.learns_from, row.size): row for row in found.rows()}


def test_published_numbers_stand_beside_ours(script, tmp_path, monkeypatch):
    rows = rows_of(
        script,
        tmp_path,
        monkeypatch,
        "--dataset=esc50",
        "--model=resnet18",
        "--seeds=2",
        results={
            ("of_everything", 0): (0.7, 10.0),
            ("of_coreset", "rfad", 5, 0): (0.4, 10.0, 2_000_000),
            ("of_coreset", "rfad", 5, 1): (0.5, 20.0, 2_000_000),
            ("of_choice", "bald", 0): ({960: 0.6, 250: 0.3}, 30.0),
        },
        reasons={("of_coreset", "dc", 5, 0): "not run: no memory"},
    )
    # Everything; four functions at four shares and three sizes; three methods.
    assert len(rows) == 1 + 4 * 7 + 3 * 3
    assert rows["all clips", "all"].published == 69.36
    assert rows["all clips", "all"].clips == 1440
    largest = rows["RFAD", "5 per class"]
    assert largest.accuracies == (0.4, 0.5)
    assert (largest.published, largest.published_label) == (49.65, "0.15 %")
    assert rows["RFAD", "2 per class"].published == 17.96
    assert rows["bald", "60 %"].accuracies == (0.6,)
    assert rows["bald", "60 %"].published == 50.95
    assert rows["bald", "5 per class"].accuracies == (0.3,)
    assert rows["bald", "5 per class"].published == 5.5
    # The source has acquisition functions at one budget of the coresets alone.
    assert rows["bald", "3 per class"].published is None
    made = script.budget_table.table(
        [rows["DC", "5 per class"], rows["DSA", "5 per class"], largest],
        1600,
        50,
        160_000_000,
    )
    told = [row[made.columns.index("accuracy (%)")] for row in made.rows]
    assert told == ["not run: no memory", "not run", "45.0 ± 7.1"]
    assert made.rows[2][made.columns.index("of train (%)")] == "15.6"


def test_budgets_rise_and_have_the_coresets_sizes(script, tmp_path, monkeypatch):
    rows_of(script, tmp_path, monkeypatch, "--dataset=esc50")
    script.ladder.cache_clear()
    assert script.ladder() == (
        *("2/class", "3/class", "5/class"),
        *("20%", "30%", "40%", "60%"),
    )
    script.ladder.cache_clear()


def test_what_cannot_be_run_is_noted_and_the_rest_goes_on(
    script, tmp_path, monkeypatch
):
    rows_of(script, tmp_path, monkeypatch, "--dataset=esc50")
    monkeypatch.setattr(script.Found, "write", lambda self: None)
    found = script.Found()

    def refuses(seed):
        raise UserError("a class has 3 clips")

    found.ask(refuses, 0)
    found.ask(lambda seed: (0.5, 1.0), 0)
    assert found.reasons == {("refuses", 0): "not run: a class has 3 clips"}
    assert list(found.results.values()) == [(0.5, 1.0)]
