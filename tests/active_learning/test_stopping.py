"""Stopping advice and contested answers, by hand-computed cases."""

import numpy as np
import pytest

from audiodd_jax.active_learning import review, stopping


def test_kappa_of_hand_computed_predictions():
    before = np.array(["a", "a", "b", "b"])
    now = np.array(["a", "b", "b", "b"])
    # Observed 3/4; by chance 1/2 * 1/4 + 1/2 * 3/4 = 1/2.
    assert stopping.agreement(before, now) == pytest.approx(0.5)
    assert stopping.agreement(before, before) == 1
    assert stopping.agreement(np.array(["a", "a"]), np.array(["a", "a"])) == 1
    assert stopping.agreement(np.array(["a", "b"]), np.array(["b", "a"])) == -1


def test_wilson_interval_of_published_numbers():
    """Newcombe 1998, table I: 81 of 263, and 0 of 20."""
    assert stopping.interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert stopping.interval(0.0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    assert stopping.interval(0.0, 0) == (0, 1)


@pytest.mark.parametrize(
    ("agreements", "word"),
    [
        ([], "Too early"),
        ([1.0, 1.0], "Too early"),
        ([0.5, 1.0, 0.99, 0.985], "unlikely"),
        ([1.0, 1.0, 0.99, 0.97], "likely"),
    ],
)
def test_the_advice_follows_the_last_three_pairs(agreements, word):
    sentence = stopping.advice(agreements)
    assert f" {word} " in f" {sentence} "
    assert "Bloodgood and Vijay-Shanker 2009" in sentence


def test_only_answers_that_all_networks_contradict_are_contested():
    """The networks know the truth, except that they doubt clip 3 in one repeat."""
    truth = np.array([0, 1, 2] * 5)
    answers = truth.copy()
    answers[[4, 11]] = [2, 0]
    seen = []

    def learn(rows, number):
        seen.append((set(rows.tolist()), number))
        probabilities = np.eye(3)[truth] * 0.8 + 0.1
        if number < review.FOLDS:
            probabilities[3] = [0.1, 0.8, 0.1]
        return probabilities

    train, others = np.arange(9), np.arange(9, 15)
    found = review.contested(answers, train, others, learn, seed=0)
    assert sorted(found.rows.tolist()) == [4, 11]
    assert found.predicted.argmax(1).tolist() == truth[found.rows].tolist()
    # Each answer is left out once per repeat, and validation is never learnt.
    for repeat in range(review.REPEATS):
        parts = [rows for rows, n in seen if n // review.FOLDS == repeat]
        assert [sum(i not in part for part in parts) for i in train] == [1] * 9
        assert not set().union(*parts) & set(others.tolist())


def test_tags_are_contested_one_by_one():
    answers = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 3, np.int8)
    probabilities = answers.astype(float)
    answers[5] = [1, 1]  # was [0, 1]
    learn = lambda rows, number: probabilities
    found = review.contested(answers, np.arange(12), np.arange(0), learn, 0)
    assert found.rows.tolist() == [5]
