"""Label solve: the labels minimise the documented objective."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_loop import data, on_host, settings

from audiodd_jax.coreset import selection
from audiodd_jax.distillation import label_solve, loop
from audiodd_jax.features.labels import centred_targets, clip_weights
from audiodd_jax.kernels import ridge
from audiodd_jax.runtime import devices

KEY = jax.random.key(4)


def problem(**changes):
    config = settings(coreset__solve_labels=True, **changes)
    prepared = data()
    given = (prepared.train, prepared.class_names, np.full(3, 2))
    start = selection.start(KEY, *given, config.coreset)
    return config, prepared, start


def scoring(config):
    return ridge.Scoring.from_config(config)


def solved(config, prepared, start):
    return label_solve.solve(
        KEY,
        start,
        prepared,
        config.coreset,
        scoring(config),
        devices.make_mesh(),
        by_recording=config.loop.draw == "recordings",
    )


def objective(labels, config, prepared, start, weights):
    """The module's objective, without the matrix A."""
    full = start._replace(labels=labels).unpack(config.coreset.factor)
    predictions = ridge.predict_images(
        KEY,
        prepared.train.images,
        full.images,
        full.labels,
        scoring(config),
    )
    classes = len(prepared.class_names)
    targets = centred_targets(prepared.train.labels, classes, predictions.dtype)
    prior = config.coreset.label_prior * len(targets) / len(labels)
    error = jnp.sum(weights[:, None] * (targets - predictions) ** 2)
    return error + prior * jnp.sum((labels - start.labels) ** 2)


@pytest.mark.optimized
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loop__draw": "recordings"},
        pytest.param({"coreset__factor": 2}, marks=pytest.mark.slow),
    ],
)
def test_the_labels_minimise_the_weighted_error(changes):
    config, prepared, start = problem(**changes)
    # One recording of each class has several clips, the others one.
    labels = prepared.train.labels
    numbers = jnp.where(jnp.arange(30) < 12, labels, jnp.arange(30))
    prepared = dataclasses.replace(
        prepared, train=prepared.train._replace(recordings=numbers)
    )
    weights = jnp.ones(prepared.train.labels.size)
    if "loop__draw" in changes:
        recordings = prepared.train.recordings
        weights = clip_weights(labels, len(prepared.class_names), recordings)
        assert weights.max() > 1.5 * weights.min()
    weights /= weights.mean()
    found = solved(config, prepared, start)
    np.testing.assert_array_equal(found.images, start.images)
    of = lambda labels: objective(labels, config, prepared, start, weights)
    slope = jax.jit(jax.grad(of))
    before, after = (jnp.abs(slope(each.labels)).max() for each in (start, found))
    assert after < 1e-3 * before
    assert of(found.labels) < of(start.labels)


def test_a_strong_prior_keeps_the_labels():
    config, prepared, start = problem(coreset__label_prior=1e6)
    found = solved(config, prepared, start)
    np.testing.assert_allclose(found.labels, start.labels, atol=1e-4)


def test_clips_in_the_cache_give_the_same_labels(monkeypatch):
    """Also in several pieces."""
    config, prepared, start = problem()
    device, host = on_host(prepared)
    whole = solved(config, device, start).labels
    monkeypatch.setattr(label_solve, "_CLIPS", 7)
    np.testing.assert_allclose(solved(config, host, start).labels, whole, atol=1e-4)


def test_a_run_starts_with_solved_labels_and_reports_its_real_start():
    config, prepared, _ = problem(coreset__learn_labels=False, loop__keep="last")
    run = loop.distill(config, prepared)
    plain = loop.distill(settings(loop__keep="last"), prepared)
    np.testing.assert_array_equal(run.start.labels, plain.start.labels)
    assert jnp.abs(run.best.labels - run.start.labels).max() > 0.01
    first = [row["validation_loss"] for row in (run.history[0], plain.history[0])]
    assert first[0] != first[1]
