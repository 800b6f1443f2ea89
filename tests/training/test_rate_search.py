"""The choice of a learning rate on validation clips, without any training."""

from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from audiodd_jax.config import Config, fields
from audiodd_jax.errors import NotFiniteError, UserError
from audiodd_jax.features.clips import Clips
from audiodd_jax.training import evaluation, fit, programs
from audiodd_jax.training import source as source_lib
from audiodd_jax.training.programs import Programs
from audiodd_jax.training.rate_search import RateSearch
from audiodd_jax.training.scores import evaluate
from audiodd_jax.training.source import Source

# Validation score and loss by rate; no loss: it is not finite.
HISTORY = {3e-4: (0.5, 1.0), 1e-3: (0.7, 2.0), 3e-3: (0.7, 1.5), 9e-3: ()}
CLIPS = Clips(jnp.zeros((1, 4, 4, 1)), jnp.zeros(1, jnp.int32))
SOURCE = Source(CLIPS, {"name": "random"})


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Trainings that only look their validation up, and count the scored ones."""
    scored = []

    def fitted(compiled, *_):
        rate = compiled.settings.learning_rate
        if not HISTORY[rate]:
            raise NotFiniteError("the loss is not finite")
        names = ("validation_accuracy", "validation_loss")
        row = dict(zip(names, HISTORY[rate], strict=True), seconds=1.0)
        return SimpleNamespace(rate=rate, history=[row])

    def score(fitted, *_):
        scored.append(fitted.rate)
        return evaluate("linear", jnp.zeros((1, 1), int), jnp.zeros(1, int), 2)

    nothing = dict.fromkeys(Programs._fields)
    made = lambda model, settings, data: Programs(**nothing | {"settings": settings})
    monkeypatch.setattr(programs, "make", made)
    monkeypatch.setattr(source_lib, "set_of", lambda *_: None)
    monkeypatch.setattr(fit, "fit", fitted)
    monkeypatch.setattr(evaluation, "networks", score)
    data = SimpleNamespace(
        test=None,
        num_classes=2,
        class_names=("a", "b"),
        metric="accuracy",
        clips_digest="digest",
    )
    config = fields.replace(Config(), {"training.learning_rate": 1e-3})
    return RateSearch(config, data, tmp_path / "runs", {}), scored


def test_rates_are_multiples_of_the_recipe(search):
    assert search[0].rates == [3e-4, 1e-3, 3e-3]


def test_the_best_in_validation_is_scored_once(search):
    """Equal scores are decided by the loss; a loss that is not finite loses."""
    search, scored = search
    result = search.scored(SOURCE, 0, list(HISTORY), "random clips", "unit")
    assert scored == [3e-3]
    assert result["learning_rate"] == 3e-3
    shown = {"0.0003": 0.5, "0.001": 0.7, "0.003": 0.7}
    assert result["validation_accuracies"] == shown
    again = search.scored(SOURCE, 0, list(HISTORY), "random clips", "unit")
    assert again["test_accuracies"] == [*result["test_accuracies"]]
    assert scored == [3e-3]
    # What the unit would have resumed from is gone.
    assert [p.name for p in (search.folder / "unit").iterdir() if p.is_dir()] == []


def test_another_set_or_rate_is_not_taken_for_a_finished_one(search):
    search, _ = search
    search.scored(SOURCE, 0, [1e-3], "random clips", "unit")
    with pytest.raises(UserError, match="another configuration"):
        search.scored(SOURCE, 0, [3e-3], "random clips", "unit")
    other = SOURCE._replace(record={"name": "herding"})
    with pytest.raises(UserError, match="another configuration"):
        search.scored(other, 0, [1e-3], "random clips", "unit")


def test_no_finite_loss_names_the_rates(search):
    search, _ = search
    with pytest.raises(UserError, match=r"at any of the learning rates 0\.009: lower"):
        search.scored(SOURCE, 0, [9e-3], "random clips", "unit")


def test_all_rates_train_to_their_last_step(search):
    search, _ = search
    changes = {"training.patience": 3, "training.seeds": 5}
    search = search._replace(config=fields.replace(search.config, changes))
    search.scored(SOURCE, 7, [1e-3], "random clips", "unit")
    (compiled,) = search.compiled.values()
    assert (compiled.settings.patience, compiled.settings.seeds) == (0, 1)
