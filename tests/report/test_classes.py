"""Accuracy by class and mistakes, from confusion matrices."""

import numpy as np
import pytest
import run_rows

from audiodd_jax.report import groups, page, runs
from audiodd_jax.runtime.files import DAMAGE

NAMES = ("a", "b", "c")
ONE = [[3, 1, 0], [0, 0, 0], [1, 1, 2]]


def summary(*confusions, names=NAMES):
    return run_rows.summary(*confusions, names=names)


def group(number, *counts, names=NAMES):
    scores = [summary(*counts, names=names)] if counts else []
    name = f"run{number}"
    return run_rows.group(number, learns_from=name, learner="krr", scores=scores)


def test_seeds_and_runs_add_up():
    found = runs.pooled([summary(ONE, ONE), summary(ONE)])
    np.testing.assert_array_equal(found.counts, 3 * np.array(ONE))
    assert found.accuracies == [0.75, None, 0.5]


def test_mistakes_come_most_frequent_first():
    found = runs.pooled([summary([[3, 1, 0], [4, 0, 0], [0, 2, 2]])])
    assert list(found.mistakes()) == [
        "b, mistaken for a: 4 of 4",
        "c, mistaken for b: 2 of 4",
        "a, mistaken for b: 1 of 4",
    ]
    assert list(found.mistakes(1)) == ["b, mistaken for a: 4 of 4"]


@pytest.mark.parametrize(
    "summaries",
    [
        [],
        [{"test_accuracy": 0.5}],
        [summary(ONE), {"confusions": None}],
        [summary(ONE), summary(ONE, names=("a", "b", "other"))],
    ],
)
def test_without_matrices_of_the_same_classes_there_are_no_scores(summaries):
    assert runs.pooled(summaries) is None


@pytest.mark.parametrize(
    "damaged",
    [ONE[:2], [[1, 2], [3, 4]], [["x"] * 3] * 3, [[1, 2], [3]], [[-1] * 3] * 3],
)
def test_a_damaged_matrix_is_refused(damaged):
    with pytest.raises(DAMAGE):
        runs.pooled([summary(damaged)])


def test_other_classes_have_their_own_table():
    made = [group(1, ONE), group(2, ONE, names=("x", "y", "z")), group(3, ONE)]
    tables = groups.class_tables(made)
    assert [[group.number for group in table] for table in tables] == [[1, 3], [2]]
    assert groups.class_tables([group(1)]) == []


def test_matrices_have_shares_and_mistakes():
    counts = [[999, 1, 0], [0, 0, 0], [0, 0, 1]]
    found = runs.pooled([summary(counts)])
    assert found.shares == [[0.999, 0.001, 0], [0, 0, 0], [0, 0, 1]]
    assert list(found.mistakes()) == ["a, mistaken for b: 1 of 1,000"]


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0"), (0.004, "<1"), (0.006, "1"), (1.0, "100")]
)
def test_small_shares_are_not_rounded_to_zero(share, text):
    assert page._percent(share) == text


def test_the_page_limits_the_number_of_large_matrices():
    names = tuple(map(str, range(200)))
    made = [group(i, np.eye(200, dtype=int), names=names) for i in range(3)]
    assert [group.number for group in groups.matrices(made)] == [0]
    assert len(groups.matrices([group(i, ONE) for i in range(3)])) == 3


def tagged(a, b, name="b"):
    return {
        "protocol": "krr",
        "macro_f1s": [0.5],
        "average_precisions": [[a, b]],
        "per_class_average_precision": {"a": a, name: b},
    }


def test_tags_have_mean_precisions_over_seeds_and_no_matrix():
    group = run_rows.group(1, scores=[tagged(0.5, None), tagged(1.0, None)])
    assert group.classes.accuracies == [0.75, None]
    assert group.classes.metric == "average precision of each tag"
    assert groups.class_tables([group]) == [[group]]
    assert groups.matrices([group]) == []


def test_tags_of_other_names_or_kinds_are_not_pooled():
    other = tagged(0.5, 0.5, "c")
    assert runs.pooled([tagged(0.5, 0.5), other]) is None
    assert runs.pooled([tagged(0.5, 0.5), summary(ONE)]) is None
    with pytest.raises(DAMAGE):
        runs.pooled([tagged("x", 0.5)])
