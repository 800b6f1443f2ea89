"""Runs side by side: what counts as a line, and from where its numbers come."""

import json

import numpy as np
import pytest

from audiodd_jax.errors import UserError
from audiodd_jax.report import comparison, run_charts
from audiodd_jax.report.run_index import Group, Run

CONFUSION = [[3, 1], [0, 4]]


def distillation(path, seed=0, accuracy=0.5, method="rfad", **changes):
    path.mkdir(parents=True, exist_ok=True)
    result = {
        "dataset": "tones",
        "fold": 0,
        "method": method,
        "samples_per_class": 1,
        "num_samples": 2,
        "bytes": 800,
        "protocol": "krr",
        "test_accuracy": accuracy,
        "start": "real",
        "start_test_accuracy": 0.25,
        "steps": 10,
        "wall_seconds": 20.0,
        **changes,
    }
    history = [
        {"step": 0, "validation_accuracy": 0.2 + seed / 10},
        {"step": 5, "loss": 1.0},
        {"step": 10, "validation_accuracy": 0.4},
    ]
    config = {"seed": seed, "features": {"n_mels": 8}}
    return Run(path, "distill", config, result, history)


def row(protocol="krr", learns_from="coreset", accuracies=(0.875,), **changes):
    return {
        "protocol": protocol,
        "learns_from": learns_from,
        "num_samples": 2,
        "seconds": 3.0,
        "test_accuracies": list(accuracies),
        "per_class_accuracy": {"a": 0.75, "b": 1.0},
        "confusions": [CONFUSION] * len(accuracies),
        **changes,
    }


def evaluated(run, *rows):
    (run.path / "evaluation").mkdir()
    (run.path / "evaluation" / "evaluation.json").write_text(json.dumps(rows))
    return run


def network(tmp_path, learns_from, origin, accuracies):
    result = {
        "dataset": "tones",
        "model": "convnet",
        "learns_from": learns_from,
        "num_samples": 2,
        "test_accuracies": accuracies,
        "wall_seconds": 7.0,
    }
    run = Run(tmp_path / "net", "train", {"seed": 0}, result, [])
    return Group([run], origin, ())


def active(tmp_path):
    counted = ((10, 0.3), (20, 0.6))
    result = {
        "dataset": "tones",
        "acquisition": "bald",
        "model": "convnet",
        "wall_seconds": 30.0,
        "rounds": [{"counted": n, "test_accuracy": a} for n, a in counted],
    }
    return Group([Run(tmp_path / "a", "active", {"seed": 0}, result, [])], "", ())


def test_seeds_of_a_coreset_are_one_line(tmp_path):
    runs = [distillation(tmp_path / str(s), s, 0.5 + s / 10) for s in (0, 1)]
    (line,) = comparison.compare([Group(runs, "", ())], [], [])
    assert (line.number, line.dataset, line.name) == (1, "tones", "rfad, 1 per class")
    assert line.learner == "kernel regression"
    assert (line.accuracies, line.start) == ((0.5, 0.6), 0.25)
    assert (line.examples, line.num_bytes, line.seconds) == (2, 800, 20)
    assert line.validated == ((0, pytest.approx(0.25)), (10, 0.4))
    assert line.classes is None


def test_an_evaluation_gives_a_coreset_its_classes_and_baselines_lines(tmp_path):
    rows = row(), row(learns_from="random", accuracies=(0.4, 0.6)), row("nngp")
    ignored = row("convnet"), row("pkg.net:make")
    run = evaluated(distillation(tmp_path / "x"), *rows, *ignored)
    lines = comparison.compare([Group([run], "", ())], [], [])
    assert [(line.number, line.name, line.learner) for line in lines] == [
        (1, "rfad, 1 per class", "kernel regression"),
        (2, "real clips, random", "kernel regression"),
        (3, "rfad, 1 per class", "kernel regression, exact NNGP kernel"),
    ]
    assert [line.num_bytes for line in lines] == [800, None, 800]
    assert lines[0].accuracies == (0.5,)
    np.testing.assert_array_equal(lines[0].classes.counts, CONFUSION)
    assert lines[1].accuracies == (0.4, 0.6)
    np.testing.assert_array_equal(lines[1].classes.counts, 2 * np.array(CONFUSION))


def test_the_same_real_clips_count_once_and_each_seed_adds(tmp_path):
    random = lambda accuracy: row(learns_from="random", accuracies=(accuracy,))
    one = evaluated(distillation(tmp_path / "one"), random(0.4))
    same = evaluated(distillation(tmp_path / "same", method="dm"), random(0.4))
    seed = evaluated(distillation(tmp_path / "seed", 1, method="dm"), random(0.6))
    groups = [Group([one], "", ()), Group([same, seed], "", ())]
    lines = comparison.compare(groups, [], [])
    assert [line.accuracies for line in lines[2:]] == [(0.4, 0.6)]


def test_clips_with_other_features_are_another_line(tmp_path):
    random = row(learns_from="random")
    one = evaluated(distillation(tmp_path / "one"), random)
    other = evaluated(distillation(tmp_path / "other", method="dm"), random)
    other.config["features"] = {"n_mels": 16}
    lines = comparison.compare([Group([one], "", ()), Group([other], "", ())], [], [])
    assert [line.name for line in lines[2:]] == ["real clips, random"] * 2


def test_networks_on_coresets_have_their_bytes(tmp_path):
    groups = [Group([distillation(tmp_path / "x")], "", ())]
    trained = [
        network(tmp_path, "coreset", "rfad, 1 per class", [0.6, 0.8]),
        network(tmp_path, "coreset", "0123abcd", [0.6]),
        network(tmp_path, "random", "", [0.5]),
    ]
    lines = comparison.compare(groups, trained, [active(tmp_path)])
    assert [(line.name, line.num_bytes) for line in lines[1:]] == [
        ("coreset of rfad, 1 per class", 800),
        ("coreset of 0123abcd", None),
        ("real clips, random", None),
        ("labels chosen by bald", None),
    ]
    assert lines[1].mean == pytest.approx(0.7)
    assert lines[4].curve == ((10, 0.3), (20, 0.6))
    assert (lines[4].examples, lines[4].accuracies) == (20, (0.6,))


def test_datasets_stand_together(tmp_path):
    groups = [
        Group([distillation(tmp_path / str(i), dataset=name)], "", ())
        for i, name in enumerate(("b", "a", "b"))
    ]
    lines = comparison.compare(groups, [], [])
    assert [line.dataset for line in lines] == ["b", "b", "a"]
    assert [line.number for line in lines] == [1, 2, 3]
    assert list(comparison.by_dataset(lines)) == ["b", "a"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "3",
        '{"a": 1}',
        '[{"protocol": "krr"}]',
        json.dumps([row(test_accuracies=["x"])]),
        json.dumps([row(confusions=[[[1, 2, 3]]])]),
        json.dumps([row(per_class_accuracy=None)]),
    ],
)
def test_a_damaged_evaluation_is_named(tmp_path, text):
    run = evaluated(distillation(tmp_path / "x"))
    path = run.path / "evaluation" / "evaluation.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"evaluation\.json is damaged"):
        comparison.compare([Group([run], "", ())], [], [])


def test_charts_are_those_that_have_points(tmp_path):
    coreset = Group([distillation(tmp_path / "x")], "", ())
    draw = lambda *found: run_charts.draw("tones", comparison.compare(*found))
    every = draw([coreset], [], [active(tmp_path)])
    assert [chart.title for chart in every] == [
        "tones: accuracy against bytes",
        "tones: accuracy against labels",
        "tones: accuracy during distillation",
    ]
    by_bytes, by_labels, _ = every
    assert [mark.number for mark in by_bytes.marks] == [1]
    assert by_bytes.marks[0].start[1] > by_bytes.marks[0].points[0][1]
    assert [len(mark.points) for mark in by_labels.marks] == [1, 2]
    (alone,) = draw([], [], [active(tmp_path)])
    assert (alone.title, alone.note) == ("tones: accuracy against labels", "")
    assert draw([], [], []) == []


def test_a_choice_of_clips_has_no_start_and_no_steps(tmp_path):
    run = distillation(tmp_path / "x", steps=0)._replace(history=[])
    lines = comparison.compare([Group([run], "", ())], [], [])
    assert lines[0].start is None
    assert len(run_charts.draw("tones", lines)) == 2
