"""DD-Ranking's scores and paired intervals, by hand."""

import math

import pytest

from audiodd_jax.training import dd_ranking
from audiodd_jax.training.dd_ranking import Mean


def test_differences_are_paired_by_seed():
    gain = dd_ranking.difference((0.9, 0.8, 0.7), (0.8, 0.6, 0.7))
    assert gain.values == pytest.approx((0.1, 0.2, 0.0))
    assert gain.mean == pytest.approx(0.1)
    # Student's t with two degrees of freedom: 4.3027 x 0.1 / sqrt(3).
    assert gain.interval == pytest.approx(0.24841, abs=1e-5)
    with pytest.raises(ValueError, match="shorter"):
        dd_ranking.difference((0.9, 0.8), (0.8,))


def test_an_interval_needs_three_seeds():
    assert math.isnan(Mean((0.1, 0.2)).interval)
    assert Mean((0.1, 0.1, 0.1)).interval == 0


@pytest.mark.parametrize(
    ("hlr", "ior", "expected"),
    [
        (1.0, -1.0, 0.0),  # nothing recovered, and random clips recognise everything
        (-1.0, 1.0, 1.0),
        (0.0, 0.0, 0.26894),  # (1 - 1/e) / (e - 1/e)
        (0.2, 0.1, 0.24819),  # (exp(-0.05) - 1/e) / (e - 1/e)
    ],
)
def test_the_label_robust_score(hlr, ior, expected):
    score = dd_ranking.label_robust_score(Mean((hlr,)), Mean((ior,)))
    assert score.values == pytest.approx((expected,), abs=1e-5)


def test_the_weight_is_that_of_the_improvement():
    pair = Mean((0.4,)), Mean((0.2,))
    alone = dd_ranking.label_robust_score(*pair, weight=1.0).mean
    expected = (math.exp(0.2) - math.exp(-1)) / (math.e - math.exp(-1))
    assert alone == pytest.approx(expected)
