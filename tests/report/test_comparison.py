"""Runs side by side: what counts as a group, and where its numbers come from."""

import json

import numpy as np
import pytest
from run_rows import CONFUSION, active, distillation, summary, training

from audiodd_jax.errors import UserError
from audiodd_jax.report import charts, groups
from audiodd_jax.report.groups import by
from audiodd_jax.report.runs import find


def row(protocol="krr", learns_from="coreset", accuracies=(0.875,), **changes):
    return {
        **summary(*[CONFUSION] * len(accuracies)),
        "protocol": protocol,
        "learns_from": learns_from,
        "num_samples": 2,
        "seconds": 3.0,
        "test_accuracies": list(accuracies),
        **changes,
    }


@pytest.fixture
def compared(monkeypatch):
    """``compared(folder)``: the groups of its runs, which have no coreset files."""
    by_digest = lambda distilled: {"aaaa": distilled[0]} if distilled else {}
    monkeypatch.setattr(groups, "_by_digest", by_digest)
    return lambda folder: groups.compare(find([folder]))


def test_seeds_of_a_coreset_are_one_group(tmp_path, compared):
    for seed in (0, 1):
        distillation(tmp_path / str(seed), seed, test_accuracy=0.5 + seed / 10)
    (group,) = compared(tmp_path)
    first = group.first
    assert (group.number, first.dataset, group.name) == (
        1,
        "tones",
        "rfad, 1 per class",
    )
    assert first.learner == "kernel regression"
    assert (group.accuracies, group.start) == ((0.5, 0.6), 0.25)
    assert (first.examples, group.num_bytes, group.seconds) == (2, 800, 20)
    assert group.validated == [(0, pytest.approx(0.25)), (10, 0.4)]
    assert group.classes is None


def test_an_evaluation_adds_classes_and_groups_of_baselines(tmp_path, compared):
    rows = row(), row(learns_from="random", accuracies=(0.4, 0.6)), row("nngp")
    ignored = row("convnet"), row("pkg.net:make")
    distillation(tmp_path / "x", evaluation=[*rows, *ignored])
    found = compared(tmp_path)
    assert [(group.number, group.name, group.first.learner) for group in found] == [
        (1, "rfad, 1 per class", "kernel regression"),
        (2, "real clips, random", "kernel regression"),
        (3, "rfad, 1 per class", "kernel regression, exact NNGP kernel"),
    ]
    assert [group.num_bytes for group in found] == [800, None, 800]
    assert [group.start for group in found] == [0.25, None, None]
    assert found[0].accuracies == (0.5,)
    np.testing.assert_array_equal(found[0].classes.counts, CONFUSION)
    assert found[1].accuracies == (0.4, 0.6)
    np.testing.assert_array_equal(found[1].classes.counts, 2 * np.array(CONFUSION))


def test_the_same_real_clips_count_once_and_each_seed_adds(tmp_path, compared):
    random = lambda accuracy: [row(learns_from="random", accuracies=(accuracy,))]
    distillation(tmp_path / "a", evaluation=random(0.4))
    distillation(tmp_path / "b", method="dm", evaluation=random(0.4))
    distillation(tmp_path / "c", 1, method="dm", evaluation=random(0.6))
    assert [group.accuracies for group in compared(tmp_path)[2:]] == [(0.4, 0.6)]


def test_clips_with_other_features_are_another_group(tmp_path, compared):
    random = [row(learns_from="random")]
    distillation(tmp_path / "a", evaluation=random)
    other = {"features": {"n_mels": 16}}
    distillation(tmp_path / "b", method="dm", evaluation=random, config=other)
    names = [group.name for group in compared(tmp_path)[2:]]
    assert names == ["real clips, random"] * 2


def test_networks_on_coresets_have_their_bytes(tmp_path, compared):
    distillation(tmp_path / "coreset")
    training(tmp_path / "1", "coreset", "aaaa", [0.6, 0.8])
    training(tmp_path / "2", "coreset", "0123abcd", [0.6])
    training(tmp_path / "3", "random", None, [0.5])
    active(tmp_path / "active")
    found = compared(tmp_path)
    assert [(group.name, group.num_bytes) for group in found[1:]] == [
        ("coreset of rfad, 1 per class", 800),
        ("coreset of 0123abcd", None),
        ("real clips, random", None),
        ("labels chosen by bald", None),
    ]
    assert found[1].mean == pytest.approx(0.7)
    assert found[4].curve.counts == (10, 20)
    assert found[4].curve.accuracies.tolist() == [[0.3, 0.6]]
    assert (found[4].first.examples, found[4].accuracies) == (20, (0.6,))


def test_groups_of_a_dataset_are_adjacent(tmp_path, compared):
    for folder, name in zip("abc", ("y", "x", "y"), strict=True):
        config = {"coreset": {"samples_per_class": ord(folder)}}
        distillation(tmp_path / folder, dataset=name, config=config)
    found = compared(tmp_path)
    assert [group.first.dataset for group in found] == ["x", "y", "y"]
    assert [group.number for group in found] == [1, 2, 3]
    assert list(by(found, lambda group: group.dataset)) == ["x", "y"]


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
    distillation(tmp_path / "x", evaluation=[row()])
    (tmp_path / "x" / "evaluation" / "evaluation.json").write_text(text)
    with pytest.raises(UserError, match=r"evaluation\.json is damaged"):
        find([tmp_path])


def test_charts_are_those_that_have_points(tmp_path, compared):
    distillation(tmp_path / "both" / "coreset")
    distillation(tmp_path / "both" / "other", method="random", bytes=1600, steps=0)
    active(tmp_path / "both" / "active")
    active(tmp_path / "one" / "active")
    by_bytes, by_labels, by_steps = charts.draw(compared(tmp_path / "both"))
    assert [chart.title for chart in (by_bytes, by_labels, by_steps)] == [
        "tones: accuracy against bytes",
        "tones: accuracy against labels",
        "tones: accuracy during distillation",
    ]
    assert [mark.number for mark in by_bytes.marks] == [1, 2]
    assert by_bytes.marks[1].start[1] > by_bytes.marks[1].points[0][1]
    assert [len(mark.points) for mark in by_labels.marks] == [1, 1, 2]
    (alone,) = charts.draw(compared(tmp_path / "one"))
    assert (alone.title, alone.note) == ("tones: accuracy against labels", "")
    assert charts.draw([]) == []
    # A single coreset is a single point, but has a curve.
    distillation(tmp_path / "coreset")
    (group,) = compared(tmp_path / "coreset")
    (alone,) = charts.draw([group])
    assert alone.title == "tones: accuracy during distillation"


def test_a_choice_of_clips_has_no_start_and_no_steps(tmp_path, compared):
    distillation(tmp_path / "x", method="random", steps=0)
    (tmp_path / "x" / "metrics.jsonl").write_text("")
    (group,) = compared(tmp_path)
    assert group.start is None
    assert charts.draw([group]) == []
