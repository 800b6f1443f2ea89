"""``experiments/table.py --sizes=study``: the published rows, and their plan."""

import importlib

import pytest

TINY = {
    "all": {
        "features.n_mels": 8,
        "features.frames": 16,
        "network.width": 4,
        "evaluation.width": 4,
        "evaluation.seeds": 1,
        "loop.batch_size": 64,
        "loop.log_every": 2,
        "loop.eval_every": 0,
        "teacher.steps": 20,
    },
    "rfad": {"loop.steps": 4},
    "convnet": {
        "training.steps": 40,
        "training.log_every": 10,
        "training.eval_every": 10,
        "training.patience": 2,
        "model.width": 8,
        "model.depth": 2,
    },
}


def test_the_study_has_the_published_rows_and_sizes(script, found_of, rows_of):
    sizes = {"esc50": (5, 3, 2), "speech_commands": (50, 30, 20)}
    for dataset, expected in {**sizes, "urbansound8k": (20, 10, 5)}.items():
        found = found_of(f"--dataset={dataset}", "--sizes=study")
        assert tuple(found.runs.sizes) == expected
        rows = rows_of(found)
        # All clips; four functions at four shares and three sizes; RFAD with both kinds
        # of labels, aligned RFAD and random clips with the same labels.
        assert len(rows) == 1 + 4 * 7 + 4 * 3
        published = {
            (row.learns_from, row.size): row.published for row in rows if row.published
        }
        assert published["all clips", "all"]
        assert published["bald", "20 %"]
        assert ("RFAD", "20 per class") in published or dataset == "esc50"
    # Twenty spectrograms per class are the smallest published size.
    assert published["RFAD", "20 per class"] == 35.75
    assert ("RFAD", "5 per class") not in published


def test_networks_have_their_own_number_of_seeds(script, found_of):
    found_of("--model=convnet,resnet18", "--seeds=3,2", "--sizes=study")
    seeds = [script.request(model).seeds for model in ("convnet", "resnet18")]
    assert seeds == [(0, 1, 2), (0, 1)]


def test_rfad_has_the_published_loss_and_aligned_that_of_the_preset(found_of):
    runs = found_of("--dataset=esc50", "--sizes=study").runs
    rfad, aligned = (runs.config(0, name, 5, "teacher") for name in ("rfad", "aligned"))
    assert (rfad.method, aligned.method) == ("rfad", "rfad")
    assert (rfad.rfad.views, aligned.rfad.views) == (0, 4)
    assert (rfad.coreset.views, aligned.coreset.views) == (20, 20)
    recipe = runs.recipe(0).training
    assert (recipe.patience, recipe.eval_every, recipe.steps) == (6, 50, 1000)


def test_the_plan_counts_what_is_left(script, found_of, outcome, monkeypatch):
    results = {
        ("everything", 0): ({1440: 0.7}, 360.0),
        ("choice", "bald", 0): ({320: 0.6}, 720.0),
    }
    found = found_of(
        *("--dataset=esc50", "--sizes=study", "--seeds=2", "--samples_per_class=5"),
        "--acquisitions=bald",
        results=results,
    )
    plan, rows = importlib.import_module("table_plan"), script.request()
    keys = [key[:-1] for key in rows.keys(found.runs.sizes, 0)]
    monkeypatch.setattr(plan, "_seconds", lambda *_: dict.fromkeys(keys, 1800.0))
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in plan.table(found, rows).splitlines()
    ]
    assert cells[0][0] == "esc50, convnet"
    assert ["all clips", "1", "1", "6.0", "0.10"] in cells
    assert ["bald", "1", "1", "12.0", "0.20"] in cells
    assert ["aligned 5 teacher", "0", "2", "30.0", "1.00"] in cells
    assert cells[-1][2:] == ["10", "", "4.30"]


@pytest.mark.nightly
def test_a_study_of_tones_is_planned_run_and_resumed(
    script, found_of, rows_of, monkeypatch
):
    monkeypatch.setitem(script.CHANGES, "study", TINY)
    changes = importlib.import_module("audiodd_jax.config.presets").PRESETS_OF_METHODS
    aligned = {**changes["transfer", "rfad"], "loop.steps": 4}
    monkeypatch.setitem(changes, ("transfer", "rfad"), aligned)
    arguments = ["--dataset=tones", "--sizes=study", "--seeds=1", "--shares=20%"]
    arguments += ["--samples_per_class=1", "--acquisitions=bald"]
    plan = importlib.import_module("table_plan")
    for is_again in (False, True):
        found = found_of(*arguments)
        del found.runs.data  # the real one
        before = dict(found.results)
        planned = plan.table(found, script.request())
        assert planned.splitlines()[-1].count(" 0 ") == is_again
        script.ask_all(found, script.request())
        assert not found.reasons
        assert not is_again or found.results == before
    rows = {row.learns_from: row for row in rows_of(found)}
    names = ("all clips", "RFAD", "RFAD, hard labels", "RFAD, aligned")
    for name in (*names, "random clips, RFAD's labels", "bald"):
        assert rows[name].accuracies
    assert "RFAD, aligned" in found.write()
