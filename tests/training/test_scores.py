import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiodd_jax.training import scores
from audiodd_jax.training.scores import Evaluation

# Three classes: 4, 2 and 0 clips.
CONFUSION = np.array([[3, 1, 0], [1, 1, 0], [0, 0, 0]])


def test_confusion_matrix_counts_pairs():
    labels, predicted = np.array([0, 0, 1, 1, 0, 0]), np.array([0, 0, 1, 0, 1, 0])
    (found,) = scores.evaluate("krr", predicted[None], labels, 3).confusions
    np.testing.assert_array_equal(found, CONFUSION)


def test_per_class_accuracy_and_macro_f1_by_hand():
    found = Evaluation("krr", (4 / 6,), CONFUSION[None])
    np.testing.assert_array_equal(found.per_class, [0.75, 0.5, np.nan])
    # F1 of class 0: 2*3/(4+4), of class 1: 2*1/(2+2); class 2 does not occur.
    assert found.macro_f1 == pytest.approx((0.75 + 0.5) / 2)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.randoms())
def test_macro_f1_lies_between_zero_and_one(labels, random):
    labels = np.array(labels)
    predicted = np.array([random.randrange(4) for _ in labels])
    assert 0 <= scores.evaluate("krr", predicted[None], labels, 4).macro_f1 <= 1
    assert scores.evaluate("krr", labels[None], labels, 4).macro_f1 == 1


def test_the_interval_is_that_of_students_t():
    # t(0.975, 2) = 4.303; values 1, 2, 3 have a standard deviation of 1.
    found = Evaluation("krr", (1.0, 2.0, 3.0)).interval
    assert found == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert math.isnan(Evaluation("krr", (1.0,)).interval)
    assert math.isnan(Evaluation("krr", (0.9, 0.95)).interval)


def test_evaluation_over_seeds_and_its_summary():
    labels = np.array([0, 0, 1, 1])
    rows = np.array([[0, 0, 1, 1], [0, 1, 1, 0]])
    found = scores.evaluate("convnet", rows, labels, 2)
    assert found.accuracies == (1.0, 0.5)
    assert found.mean == 0.75
    np.testing.assert_allclose(found.per_class, [0.75, 0.75])
    assert found.macro_f1 == pytest.approx((1 + 0.5) / 2)
    summary = found.summary(("a", "b"))
    assert summary["per_class_accuracy"] == {"a": 0.75, "b": 0.75}
    again = scores.from_summary(summary)
    assert again.accuracies == found.accuracies
    np.testing.assert_array_equal(again.confusions, found.confusions)
    joined = scores.joined([found, found])
    assert joined.accuracies == (1.0, 0.5, 1.0, 0.5)
    assert joined.confusions.shape == (4, 2, 2)
