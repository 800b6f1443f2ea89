"""Training: learning, model selection, and resumption of interrupted runs."""

import dataclasses
import functools
import os
import signal

import checks
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.config import presets
from audiodd_jax.errors import UserError
from audiodd_jax.features import normalization
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.networks import models
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.runtime.signals import Interrupted
from audiodd_jax.training import fit, losses, programs, trainer

STATS = Normalization(*(np.full(8, v, np.float32) for v in (0, 10)))
SMALL = {
    "model__depth": 2,
    "model__width": 4,
    "training__steps": 12,
    "training__batch_size": 8,
    "training__seeds": 2,
    "training__log_every": 2,
    "training__eval_every": 4,
    "training__checkpoint_every": 4,
    "training__learning_rate": 1e-2,
    "training__augment__time_shift": 0.2,
    "training__mixup": 0.4,
    "training__average": 0.9,
}


def settings(**changes):
    return presets.for_dataset("tones", **{**SMALL, **changes})


def clips(b=30, seed=0, noise=0.5):
    """Three classes, each a bump at another mel bin."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(b) % 3).astype(np.int32)
    images = noise * rng.standard_normal((b, 8, 8, 1)).astype(np.float32)
    images[np.arange(b), 1 + 2 * labels] += 1.5
    return Clips(jnp.asarray(images), jnp.asarray(labels))


NOTHING = Clips(jnp.zeros((0, 8, 8, 1)), jnp.zeros(0, jnp.int32))


def made(config, validation):
    data = checks.prepared(clips(), validation, STATS)
    return programs.make(config.model, config.training, data)


def train(config=None, data=None, validation=None, path=None):
    config = config or settings()
    data = data or clips()
    validation = clips(12, 1) if validation is None else validation
    whole = checks.prepared(data, validation, STATS)
    compiled = checks.shared_programs(config.model, config.training, whole)
    data = fit.real_set(data, 3, config.training)
    if path is None:
        return fit.fit(compiled, data, config.seed)
    with RunDirectory(path, dataclasses.asdict(config)) as run:
        return fit.fit(compiled, data, config.seed, run)


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def seed_of(networks, index):
    return jax.tree.map(lambda leaf: leaf[index], networks)


def strip(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


@pytest.mark.optimized
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training__patience": 2, "training__optimizer": "sgd"},
        {"training__centre_outputs": True, "model__head": "random"},
    ],
    ids=str,
)
def test_a_resumed_training_matches_an_uninterrupted_one(tmp_path, changes):
    config = settings(**changes)
    whole = train(config, path=tmp_path / "whole")
    with checks.killed_at(10):
        train(config, path=tmp_path / "cut")
    resumed = train(config, path=tmp_path / "cut")
    assert_same(whole.networks, resumed.networks)
    assert strip(whole.history) == strip(resumed.history)
    assert whole.best_steps == resumed.best_steps
    # A run directory is not required.
    assert_same(whole.networks, train(config).networks)


def test_a_signal_saves_and_stops(tmp_path, monkeypatch):
    log = RunDirectory.log

    def log_and_signal(self, row):
        log(self, row)
        if row["step"] == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunDirectory, "log", log_and_signal)
    with pytest.raises(Interrupted, match="stopped by SIGTERM after step"):
        train(path=tmp_path / "run")
    monkeypatch.setattr(RunDirectory, "log", log)
    assert_same(train(path=tmp_path / "run").networks, train().networks)


@pytest.mark.optimized
def test_seeds_do_not_depend_on_how_many_train_together():
    together = train(settings(seed=5))
    alone = train(settings(seed=6, training__seeds=1))
    assert_same(seed_of(together.networks, 1), seed_of(alone.networks, 0))
    at_once = train(settings(seed=5, training__parallel=2))
    pairs = zip(
        jax.tree.leaves(together.networks),
        jax.tree.leaves(at_once.networks),
        strict=True,
    )
    for a, b in pairs:
        np.testing.assert_allclose(a, b, atol=2e-3)
    kernels = together.networks.variables.params["Conv_0"]["kernel"]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-2


# 8x8 images leave the ResNet's stem a map of 2x2: it learns them more slowly.
@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("convnet", 1.0),
        pytest.param("resnet18", 0.6, marks=pytest.mark.slow),
        ("linear", 1.0),
    ],
)
def test_every_network_learns(name, least):
    config = settings(
        model__name=name,
        training__steps=60,
        training__seeds=1,
        training__mixup=0.0,
        training__augment__time_shift=0.0,
    )
    found = train(config)
    assert found.history[-1]["validation_accuracy"] >= least
    assert found.history[-1]["loss"] < 0.7 * found.history[1]["loss"]


@pytest.mark.parametrize(
    "changes",
    [
        {"training__optimizer": "sgd", "training__learning_rate": 0.1},
        {"training__loss": "mse"},
        {
            "training__loss": "mse",
            "training__centre_outputs": True,
            "model__head": "random",
        },
        {"training__precision": "bfloat16"},
        {"training__schedule": "constant", "training__warmup": 0.0},
    ],
    ids=str,
)
def test_every_recipe_learns(changes):
    found = train(settings(training__steps=80, training__seeds=1, **changes))
    assert found.history[-1]["validation_accuracy"] > 0.9


def test_a_coreset_smaller_than_a_batch_is_one_batch_without_padding():
    """Batch statistics are those of the coreset itself."""
    config = settings(
        training__batch_size=128,
        training__mixup=0.0,
        training__augment__time_shift=0.0,
        training__steps=1,
        training__seeds=1,
        training__average=0.0,
        training__log_every=1,
    )
    few = clips(6)
    soft = jnp.eye(3)[few.labels] - 1 / 3
    targets = losses.soft_targets(soft, config.training)
    data = trainer.TrainingSet(few, targets)
    found = fit.fit(made(config, NOTHING), data, config.seed)
    model = models.make(config.model, 3)
    state = trainer.init(jax.random.key(config.seed), model, (8, 8), config.training)
    _, want = models.train_logits(
        model, state.network.variables, few.images, jax.random.key(0)
    )
    got = seed_of(found.networks.variables.statistics, 0)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.optimized
def test_early_stopping_keeps_each_seeds_best(tmp_path):
    config = settings(
        training__steps=400,
        training__patience=2,
        training__learning_rate=0.3,
        training__seeds=2,
    )
    found = train(config, data=clips(noise=3.0), validation=clips(30, 1, 3.0))
    assert found.steps == max(found.best_steps) + 8 < 400
    for seed in range(2):
        # A seed's best does not depend on how long the others trained.
        alone = train(
            dataclasses.replace(
                config,
                seed=seed,
                training=dataclasses.replace(config.training, seeds=1),
            ),
            data=clips(noise=3.0),
            validation=clips(30, 1, 3.0),
        )
        assert alone.best_steps[0] == found.best_steps[seed]
        assert_same(seed_of(alone.networks, 0), seed_of(found.networks, seed))


def test_without_validation_the_last_network_is_kept():
    found = train(validation=NOTHING)
    assert "validation_accuracy" not in found.history[-1]
    assert found.best_steps == (12, 12)


def test_validation_changes_nothing_without_patience():
    other = Clips(clips(12, 1).images, clips(12, 1).labels[::-1])
    assert_same(train().networks, train(validation=other).networks)


@pytest.mark.parametrize(
    ("changes", "validation", "words"),
    [
        ({"training__augment__background": 0.5}, None, "needs background noise"),
        ({"training__patience": 1}, NOTHING, "needs validation clips"),
        (
            {"training__patience": 1, "training__eval_every": 0},
            None,
            "counts validations",
        ),
        (
            {"training__learning_rate": 1e30, "training__optimizer": "sgd"},
            None,
            "lower",
        ),
    ],
)
def test_bad_settings_are_refused(changes, validation, words):
    with pytest.raises(UserError, match=words):
        train(settings(**changes), validation=validation)


def test_a_chunk_is_traced_once_and_moves_nothing_to_the_host():
    config = settings(training__seeds=1)
    chex.clear_trace_counter()
    traced = chex.assert_max_traces(trainer.step, n=1)
    model = models.make(config.model, 3)
    data = jax.device_put(fit.real_set(clips(), 3, config.training))
    keys = jax.random.split(jax.random.key(0), 1)
    state = jax.vmap(lambda k: trainer.init(k, model, (8, 8), config.training))(keys)
    state = jax.tree.map(jnp.copy, state)
    step = functools.partial(
        traced,
        model=model,
        config=config.training,
        stats=STATS,
        noise=None,
        loss=config.training.loss,
    )
    chunk = trainer.make_chunk(step, STATS)
    rows = jax.device_put(jnp.arange(12).reshape(1, 2, 6))
    state, _ = chunk(state, trainer.Drawn(data, rows))
    with jax.transfer_guard("disallow"):
        before = state
        state, metrics = chunk(state, trainer.Drawn(data, rows))
    assert state.step.tolist() == [4]
    assert all(value.shape == () for value in metrics.values())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.opt_state))


@pytest.mark.parametrize("stored", ["device", "host"])
def test_parts_of_a_pool_share_a_program_and_match_separate_training(
    stored, monkeypatch
):
    config = settings(training__seeds=1)
    real = clips()
    decibel = np.asarray(normalization.invert(real.images, STATS)).astype(np.float16)
    chex.clear_trace_counter()
    parts, found = (np.array([7, 2, 5, 0, 11, 1, 22, 13, 4]), np.arange(3, 23)), []

    def pool(rows):
        """A pool with the labels of ``rows`` only."""
        labels = jnp.zeros_like(real.labels).at[rows].set(real.labels[rows])
        if stored == "host":
            return Clips(decibel, labels, STATS, rows=np.arange(30))
        return Clips(jnp.asarray(decibel), labels, STATS)

    with monkeypatch.context() as patch:
        traced = chex.assert_max_traces(trainer.step, n=1)
        patch.setattr(trainer, "step", traced)
        own = made(config, NOTHING)
        for rows in parts:
            data = fit.real_set(pool(rows), 3, config.training, rows)
            found.append(fit.fit(own, data, config.seed))
    for rows, own in zip(parts, found, strict=True):
        alone = train(config, pool(np.arange(30)).subset(rows), NOTHING)
        for x, y in zip(
            jax.tree.leaves(own.networks), jax.tree.leaves(alone.networks), strict=True
        ):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def test_streamed_training_matches_training_on_the_device(tmp_path):
    real = clips()
    decibel = np.asarray(normalization.invert(real.images, STATS)).astype(np.float16)
    rows = np.arange(30)
    device = Clips(jnp.asarray(decibel), real.labels, STATS)
    host = Clips(decibel, real.labels, STATS, rows=rows)
    a, b = (
        train(data=data, path=tmp_path / str(i))
        for i, data in enumerate((device, host))
    )
    for x, y in zip(
        jax.tree.leaves(a.networks), jax.tree.leaves(b.networks), strict=True
    ):
        np.testing.assert_allclose(x, y, atol=2e-3)


def test_the_rate_rises_then_falls():
    config = settings(training__steps=10, training__warmup=0.2).training
    params = {"w": jnp.ones((1, 1))}
    tx = trainer.optimizer(
        dataclasses.replace(config, optimizer="sgd", momentum=0.0, weight_decay=0.0)
    )
    state, rates = tx.init(params), []
    for _ in range(10):
        updates, state = tx.update({"w": jnp.ones((1, 1))}, state, params)
        rates.append(-float(updates["w"][0, 0]))
    np.testing.assert_allclose(rates[:3], [5e-3, 1e-2, 1e-2], rtol=1e-5)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] < 1e-3


def test_decay_spares_biases_and_scales():
    config = settings(training__weight_decay=0.5, training__optimizer="sgd").training
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    tx = trainer.optimizer(config)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    assert float(np.abs(updates["bias"]).max()) == 0
    assert float(updates["kernel"].max()) < 0


def test_centred_outputs_are_zero_before_the_first_step():
    config = settings(training__centre_outputs=True, model__head="random")
    model = models.make(config.model, 3)
    state = trainer.init(jax.random.key(0), model, (8, 8), config.training)
    images = clips().images
    centred = models.network_logits(state.network, images, model)
    np.testing.assert_allclose(centred, 0, atol=1e-6)
    plain = models.network_logits(state.network._replace(start=None), images, model)
    assert np.abs(plain).max() > 0.1
