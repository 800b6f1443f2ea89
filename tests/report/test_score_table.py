"""A score's differences, verdicts, table and picture, by hand."""

import numpy as np
import pytest

from audiodd_jax.report import score_table
from audiodd_jax.report.score_table import Arm, Scored
from audiodd_jax.training.scores import Evaluation, TagScores

METRIC = "mean average precision"
# Average precisions of one tag, per seed.
SCORES = {
    ("hard", "all"): (0.9, 0.9, 0.9),
    ("hard", "coreset"): (0.5, 0.6, 0.7),
    ("hard", "random"): (0.4, 0.3, 0.5),
    ("hard", "herding"): (0.5, 0.6, 0.7),
    ("hard", "medoids"): (0.6, 0.5, 0.9),
    ("soft", "coreset"): (0.7, 0.8, 0.8),
    ("soft", "random"): (0.6, 0.6, 0.7),
    ("soft", "herding"): (0.8, 0.9, 0.9),
    ("soft", "medoids"): (0.5, 0.5, 0.5),
}


def arm(labels, name, values):
    tags = TagScores(np.array([[value] for value in values]), np.zeros(3))
    scores = Evaluation("linear", values, tags=tags, metric=METRIC)
    return Arm("linear", labels, name, 640, scores, 0.01, {"0.01": 0.5}, 2.0)


@pytest.fixture
def scored():
    arms = [arm(*key, values) for key, values in SCORES.items()]
    return Scored("tones, rfad", METRIC, "none", tuple(arms), ("A note.",))


def test_differences_are_paired(scored):
    gains = score_table.gains(scored, "linear", "soft")
    assert gains["random"].values == pytest.approx((0.1, 0.2, 0.1))
    assert gains["herding"].values == pytest.approx((-0.1, -0.1, -0.1))
    found = score_table.ranking(scored, "linear")
    assert found["HLR"].values == pytest.approx((0.4, 0.3, 0.2))
    assert found["IOR"].values == pytest.approx((0.1, 0.2, 0.1))
    # alpha is -0.15, -0.05, -0.05
    assert found["LRS"].values == pytest.approx((0.20968, 0.24819, 0.24819), abs=1e-5)


def test_the_verdict_is_against_the_best_rival(scored):
    ranking, verdict, note = score_table.summary(scored)
    assert "in fractions (IOR with one soft label): HLR 0.300 ± 0.248" in ranking
    assert "the strongest rival is herded clips" in verdict
    assert verdict.endswith("-10.0 ± 0.0 points, so the coreset is worse.")
    assert note == "A note."
    less = [one for one in scored.arms if one.labels == "hard"]
    _, verdict, _ = score_table.summary(scored._replace(arms=less))
    assert "the strongest rival is clips by medoids" in verdict
    assert verdict.endswith("-6.7 ± 37.9 points, so no difference is shown.")


def test_a_single_seed_has_no_interval(scored):
    arms = [
        one._replace(scores=one.scores._replace(accuracies=one.scores.accuracies[:1]))
        for one in scored.arms
    ]
    told = score_table.text(scored._replace(arms=arms))
    assert "without an interval, which needs three seeds" in told
    assert "95 % interval" not in told


def test_the_table_has_a_row_per_arm(scored):
    table = score_table.table(scored)
    assert len(table.rows) == len(SCORES)
    records = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    difference = [row["coreset minus this (points)"] for row in records]
    assert difference[:3] == ["", "", "+20.0 ± 24.8"]
    assert records[4]["learns from"] == "clips by medoids"
    assert records[0]["mean average precision (%)"] == "90.0 ± 0.0"


def test_several_networks_share_a_picture(scored, tmp_path):
    more = [one._replace(network="convnet") for one in scored.arms]
    both = scored._replace(arms=(*scored.arms, *more))
    score_table.draw(both, tmp_path / "score.png")
    assert (tmp_path / "score.png").stat().st_size > 5_000
