import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from audiodd_jax.training import scores


def outputs(seeds=2, b=50, c=4):
    rng = np.random.default_rng(0)
    tags = (rng.random((b, c)) < 0.3).astype(np.int8)
    return rng.normal(tags, 1.0, (seeds, b, c)).astype(np.float32), tags


def test_scores_match_scikit_learn():
    found, tags = outputs()
    own = scores.evaluate("krr", found, tags, 4, 0.5)
    maps = [average_precision_score(tags, each, average="macro") for each in found]
    np.testing.assert_allclose(own.accuracies, maps, rtol=1e-5)
    f1s = [f1_score(tags, each > 0.5, average="macro") for each in found]
    assert own.macro_f1 == pytest.approx(np.mean(f1s))
    assert own.metric == "mean average precision"


def test_tags_without_test_clips_do_not_count():
    found, tags = outputs()
    tags[:, 2] = 0
    own = scores.evaluate("krr", found, tags, 4, 9.0)
    others = scores.evaluate(
        "krr", np.delete(found, 2, 2), np.delete(tags, 2, 1), 3, 9.0
    )
    assert own.accuracies == pytest.approx(others.accuracies)
    assert np.isnan(own.per_class).tolist() == [False, False, True, False]
    nothing = np.zeros((3, 2), np.int8)
    zeros = np.zeros((1, 3, 2), np.float32)
    assert scores.evaluate("krr", zeros, nothing, 2, 0.5).macro_f1 == 0


def test_a_summary_survives_json():
    found, tags = outputs()
    tags[:, 2] = 0
    own = scores.evaluate("convnet", found, tags, 4, 0.5)
    summary = json.loads(json.dumps(own.summary(("a", "b", "c", "d"))))
    assert summary["measure"] == "mean average precision"
    assert summary["per_class_average_precision"]["c"] is None
    again = scores.from_summary(summary)
    assert again.accuracies == pytest.approx(own.accuracies)
    assert again.macro_f1 == pytest.approx(own.macro_f1)
    joined = scores.joined([own, again])
    assert len(joined.accuracies) == 4
    assert joined.metric == own.metric
