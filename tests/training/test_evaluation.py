import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.config import ModelConfig, presets
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.errors import UserError
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.labels import centred_targets
from audiodd_jax.kernels.ridge import Scoring
from audiodd_jax.networks import models
from audiodd_jax.training import evaluation
from audiodd_jax.training.fit import Fitted
from audiodd_jax.training.scores import Evaluation

CONFIG = presets.for_dataset(
    "tones",
    network__depth=2,
    network__width=4,
    evaluation__networks=2,
    evaluation__width=0,
)
SCORING = Scoring.from_config(CONFIG, is_test=True)
SEEDS = range(3)


def split(b=30, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    labels = (np.arange(b) % 3).astype(np.int32)
    images = noise * rng.standard_normal((b, 8, 8, 1)).astype(np.float32)
    images[np.arange(b), 1 + 2 * labels] += 1.5
    return Clips(jnp.asarray(images), jnp.asarray(labels))


def arrays(data):
    return CoresetArrays(data.images, centred_targets(data.labels, 3), jnp.float32(0))


def test_separable_data_is_learnt_and_shuffled_labels_are_chance():
    support = arrays(split(seed=1))
    shuffled = support._replace(
        labels=jax.random.permutation(jax.random.key(0), support.labels)
    )
    sources = [support, shuffled]
    good, bad = evaluation.kernel_regression(sources, split(), SCORING, SEEDS)
    assert good.mean == 1.0
    assert bad.mean < 0.7
    assert len(good.accuracies) == 3


def test_networks_depend_on_the_seed_only():
    support = arrays(split(9, noise=2.0, seed=1))
    test = split(60, noise=2.0)
    first, again = (
        evaluation.kernel_regression([support], test, SCORING, SEEDS)[0]
        for _ in range(2)
    )
    assert first.accuracies == again.accuracies
    assert len(set(first.accuracies)) > 1


def test_networks_scored_one_by_one_answer_as_in_one_program(monkeypatch):
    bars, bar = [], evaluation.progress.bar
    count = lambda total, **options: bars.append(total) or bar(total, **options)
    monkeypatch.setattr(evaluation.progress, "bar", count)
    seen, score = [], evaluation.scores.evaluate
    keep = lambda name, answers, *rest, **options: (
        seen.append(answers) or score(name, answers, *rest, **options)
    )
    monkeypatch.setattr(evaluation.scores, "evaluate", keep)
    model = models.make(ModelConfig(depth=2, width=4), 3)
    variables = models.init(jax.random.key(0), model, (8, 8))
    rng = np.random.default_rng(0)
    random = lambda leaf: jnp.float32(rng.uniform(0.5, 1.5, (4, *leaf.shape)))
    networks = models.Network(jax.tree.map(random, variables), None)
    test = split(60)
    tagged = test._replace(labels=jax.nn.one_hot(test.labels, 3, dtype=jnp.int8))
    fitted = Fitted(networks, model, (1,) * 4, 1, [])
    evaluation.networks(fitted, tagged, "convnet", 3)
    predict = evaluation.prediction_program(model, has_tags=True)
    np.testing.assert_array_equal(seen[0], predict(networks, test.images))
    assert seen[0].std(0).min() > 0
    assert bars == [4]


def test_statistics():
    scores = Evaluation("krr", (0.5, 0.7))
    assert scores.mean == pytest.approx(0.6)
    assert scores.std == pytest.approx(0.02**0.5)
    assert str(scores) == "60.0 ± 14.1 %"
    assert str(Evaluation("krr", (0.5,))) == "50.0 %"


def test_kernels_that_do_not_fit_in_memory_are_refused(monkeypatch):
    class FitsError(Exception):
        """Raised instead of the program, which is made after the check."""

    def regression_program(*_):
        raise FitsError

    def score(s, b):
        coreset = CoresetArrays(None, np.broadcast_to(np.float32(0), (s, 3)), None)
        test = Clips(None, np.broadcast_to(np.int32(0), (b,)))
        evaluation.kernel_regression([coreset], test, SCORING, SEEDS)

    monkeypatch.setattr(evaluation, "memory_of", lambda _: 16 << 30)
    monkeypatch.setattr(evaluation, "regression_program", regression_program)
    with pytest.raises(FitsError):
        score(5_000, 11_005)
    with pytest.raises(UserError, match=r"takes 123 GB, .* such as --against=10%"):
        score(84_843, 11_005)
