"""``experiments/table.py``: the rows of a table."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest

from audiodd_jax.errors import UserError


def test_published_numbers_are_next_to_ours(script, found_of, rows_of, known):
    found = found_of(
        "--dataset=esc50",
        "--model=resnet18",
        "--seeds=2",
        "--acquisitions=max_entropy,variation_ratios,bald,random",
        results=known,
        reasons={("coreset", "dc", 5, "hard", 0): "not run: no memory"},
    )
    rows = {(row.learns_from, row.size): row for row in rows_of(found)}
    # All clips; four functions at four shares and three sizes; RFAD with two kinds of
    # labels, three methods with two norms, random clips; one coreset from bought
    # labels.
    assert len(rows) == 1 + 4 * 7 + (2 + 2 * 3 + 1) * 3 + 1
    assert rows["all clips", "all"].published == 69.36
    assert rows["all clips", "all"].clips == 1440
    largest = rows["RFAD", "5 per class"]
    assert largest.accuracies == (0.4, 0.5)
    assert (largest.published, largest.published_label) == (49.65, "0.15 %")
    assert rows["RFAD", "2 per class"].published == 17.96
    assert rows["RFAD, hard labels", "5 per class"].published is None
    assert rows["bald", "60 %"].accuracies == (0.6,)
    assert rows["bald", "60 %"].published == 50.95
    assert rows["bald", "5 per class"].accuracies == (0.3,)
    assert rows["bald", "5 per class"].published == 5.5
    # The published functions have only one of the budgets of the coresets.
    assert rows["bald", "3 per class"].published is None
    bought = rows["RFAD from 20 % of the labels (bald)", "2 per class"]
    assert (bought.accuracies, bought.stored) == ((0.35,), 500_000)
    made = script.table_report.budget_table.table(
        [rows["DC, group norm", "5 per class"], rows["DSA", "5 per class"], largest],
        1600,
        50,
        160_000_000,
    )
    cells = [row[made.columns.index("accuracy (%)")] for row in made.rows]
    assert cells == ["not run: no memory", "not run", "45.0 ± 7.1"]
    assert made.rows[2][made.columns.index("of train (%)")] == "15.6"
    # The size of a coreset that was not distilled is unknown.
    assert [row[made.columns.index("bytes")] for row in made.rows] == [
        *("", "", "2,000,000")
    ]
    assert rows["random", "5 per class"].stored == 160_000_000 * 250 // 1600


def test_the_summary_compares_the_coreset_with_functions_clips_and_bytes(
    found_of, known
):
    found = found_of("--dataset=esc50", "--seeds=2", results=known)
    *_, recipe, text = found.write().splitlines()
    assert recipe == "Every row trains convnet for 500 steps of 128 clips."
    assert text == (
        "A coreset of 5 per class gives 45.0 %; 15.0 points below the best function "
        "with 60 % of the labels, bald (60.0 %); the first function to equal it, bald "
        "(60.0 %), needs 60 % (960 labels); it closes 50 % of the gap between as many "
        "random clips (20.0 %) and all clips (70.0 %); it takes 2,000,000 bytes, raw "
        "audio 160,000,000 (80 times as many)."
    )
    assert (found.runs.folder / "convnet.png").exists()


def test_a_coreset_below_random_clips_closes_nothing_of_the_gap(found_of, known):
    lower = {("coreset", "rfad", 5, "teacher", 0): ({250: 0.15}, 10.0, 2_000_000)}
    found = found_of("--dataset=esc50", "--seeds=1", results={**known, **lower})
    assert (
        "; it is 5.0 points below, and closes nothing of the gap between as many "
        "random clips (20.0 %) and all clips (70.0 %); "
    ) in found.write()


def test_coresets_from_bought_labels_are_drawn_at_their_number_of_labels(
    script, found_of, rows_of, known
):
    found = found_of("--dataset=esc50", "--seeds=2", results=known)
    _, points = script.table_report.series(
        rows_of(found), script.request().acquisitions, found.runs.count
    )
    # A fifth of the training split's 1,600 clips, validation clips included.
    bought = [p.clips for p in points if p.name == "RFAD from bought labels"]
    assert bought == [320]


def test_budgets_rise_and_include_the_sizes_of_coresets(found_of):
    assert found_of("--dataset=esc50").runs.ladder == (
        *("2/class", "3/class", "5/class"),
        *("20%", "30%", "40%", "60%"),
    )


def test_networks_on_matched_coresets_have_both_norms(
    script, outcome, found_of, monkeypatch
):
    runs = found_of("--dataset=esc50", "--model=resnet18").runs
    kinds = [asked for asked in script.request().coresets() if asked[1] != "dsa"]
    real = "hard-real-norm"
    assert kinds == [
        ("RFAD", "rfad", "teacher"),
        ("RFAD, hard labels", "rfad", "hard"),
        ("DC", "dc", real),
        ("DC, group norm", "dc", "hard"),
        ("DM", "dm", real),
        ("DM, group norm", "dm", "hard"),
        ("random clips, RFAD's labels", "random", "teacher"),
    ]
    norms = [runs.recipe(0, *asked[1:]).model.norm for asked in kinds]
    assert norms == ["batch", "batch", "batch", "group", "batch", "group", "batch"]

    def train(recipe, data, source, folder):
        result = {"wall_seconds": 1.0}
        accuracy = {"dm-2-hard-seed0-hard": 0.5}.get(folder.name, 0.6)
        return SimpleNamespace(scores=SimpleNamespace(mean=accuracy), result=result)

    distilled = []

    def distill(config, folder):
        distilled.append(folder)
        coreset = SimpleNamespace(
            labels=np.zeros((10, 5)), unpack=lambda: None, teacher_labels=None
        )
        result = {"teacher": None, "wall_seconds": 3.0, "bytes": 7}
        return SimpleNamespace(coreset=coreset, result=result)

    module = importlib.import_module("contenders")
    monkeypatch.setattr(module.audiodd_jax, "distill", distill)
    monkeypatch.setattr(module.train_lib, "train_source", train)
    monkeypatch.setattr(module.source_lib, "coreset_source", lambda *_: None)
    found = [runs.coreset("dm", 2, labels, 0) for labels in (real, "hard")]
    assert found == [outcome({10: 0.6}, 4.0, 7), outcome({10: 0.5}, 4.0, 7)]
    # One distillation serves both.
    assert len(set(distilled)) == 1


def test_coresets_from_bought_labels_share_one_size_across_seeds(
    found_of, script, outcome, rows_of
):
    found, at_20 = found_of("--dataset=esc50"), {320: 0.6}
    found.results["choice", "bald", 0] = outcome({320: 0.6}, 30.0, None, at_20)
    most = {0: 3, 1: 5, 2: 2}  # spectrograms per class that a seed's labels allow

    def bought(name, share, per_class, seed):
        if per_class > most[seed]:
            raise UserError("a class has too few labels")
        return outcome({50 * per_class: 0.4}, 30.0, 500_000)

    found.runs.bought = bought
    for seed in most:
        script.ask_bought(found, script.request(), "20%", seed)
    sizes = {key[-1]: key[3] for key in found.results if key[0] == "bought"}
    assert sizes == {0: 3, 1: 3, 2: 2}
    rows = [row for row in rows_of(found) if row.learns_from.startswith("RFAD from")]
    # A seed with a smaller size has a row of its own.
    assert [(row.size, len(row.accuracies)) for row in rows] == [
        ("3 per class", 2),
        ("2 per class", 1),
    ]


def test_a_table_may_start_at_another_seed(found_of, script, outcome, rows_of):
    results = {
        ("choice", "bald", 0): ({320: 0.9}, 30.0),
        ("bought", "bald", "20%", 5, 0): ({250: 0.9}, 30.0, 500_000),
    }
    found = found_of(
        *("--dataset=esc50", "--seeds=2", "--first_seed=3", "--samples_per_class=5"),
        *("--acquisitions=bald,random", "--methods=rfad", "--bought=20%"),
        results=results,
    )
    best = {"bald": 0.2, "random": 0.5}
    found.runs.everything = lambda seed: outcome({1440: seed / 10}, 10.0)
    found.runs.choice = lambda name, seed: outcome(
        {320: 0.4}, 30.0, None, {320: best.get(name, 0.0)}
    )
    found.runs.coreset = lambda *asked: outcome({}, 10.0, 1_000)
    found.runs.bought = lambda name, share, per_class, seed: outcome(
        {50 * per_class: 0.4}, 30.0, 500_000
    )
    script.ask_all(found, script.request())
    assert {key[-1] for key in found.results} - {3, 4} == {0}
    # The first of these seeds decides which function is best; no row uses seed 0.
    bought = {key for key in found.results if key[0] == "bought" and key[-1]}
    assert bought == {("bought", "random", "20%", 5, seed) for seed in (3, 4)}
    rows = {(row.learns_from, row.size): row.accuracies for row in rows_of(found)}
    assert rows["all clips", "all"] == (0.3, 0.4)
    assert rows["bald", "20 %"] == (0.4, 0.4)
    titles = {title for title, _ in rows if title.startswith("RFAD from")}
    assert titles == {"RFAD from 20 % of the labels (random)"}


@pytest.mark.nightly
def test_a_whole_table_of_tones(script, found_of, rows_of, monkeypatch):
    """Every kind of row once, at a tiny size; a second call repeats nothing."""
    tiny = {
        "all": {
            "features.n_mels": 8,
            "features.frames": 16,
            "network.width": 4,
            "evaluation.width": 4,
            "evaluation.seeds": 1,
            "loop.batch_size": 64,
            "loop.eval_every": 0,
            "teacher.steps": 20,
        },
        "rfad": {"loop.steps": 4},
        "dm": {"loop.steps": 2},
        "convnet": {"training.steps": 30, "model.width": 8, "model.depth": 2},
    }
    monkeypatch.setitem(script.CHANGES, "cpu", tiny)
    arguments = [
        "--dataset=tones",
        "--seeds=1",
        "--samples_per_class=1",
        "--methods=rfad,dm",
        "--acquisitions=typiclust",
        "--bought=20%",
    ]
    found = found_of(*arguments)
    del found.runs.data  # the real one
    script.ask_all(found, script.request())
    assert not found.reasons
    rows = rows_of(found)
    assert all(row.accuracies for row in rows)
    bought = [row for row in rows if row.learns_from.startswith("RFAD from 20 %")]
    assert [row.size for row in bought] == ["1 per class"]
    hard, soft = (
        next(row for row in rows if row.learns_from == name)
        for name in ("RFAD, hard labels", "RFAD")
    )
    assert hard.stored < soft.stored
    assert "A coreset of 1 per class gives" in found.write()
    again = found_of(*arguments)
    del again.runs.data
    before = dict(again.results)
    script.ask_all(again, script.request())
    assert again.results == before
