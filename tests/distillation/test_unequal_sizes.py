"""Every method learns a coreset whose classes have different numbers of images."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_loop import assert_same, data, settings
from test_matching import make, problem
from test_methods import SMALL_MATCHING

from audiodd_jax.config.names import HEADS, MATCHING, METHODS, SELECTION
from audiodd_jax.distillation import loop, matching_methods
from audiodd_jax.features.labels import centred_targets

SMALL = {
    "kip": {"network__depth": 1, "loop__batch_size": 4},
    "frepo": {"frepo__depth": 2, "frepo__width": 4, "frepo__networks": 2},
    "rfad": {"coreset__solve_labels": True},
}


def short():
    """Data whose last class has three training clips."""
    prepared = data()
    labels = np.asarray(prepared.train.labels)
    rows = np.concatenate([np.flatnonzero(labels < 2), np.flatnonzero(labels == 2)[:3]])
    return dataclasses.replace(prepared, train=prepared.train.subset(rows))


@pytest.mark.parametrize(
    "method",
    [
        # Its step is that of dc, on changed clips, and takes twice as long to compile.
        pytest.param(name, marks=pytest.mark.slow if name == "dsa" else ())
        for name in METHODS
        if name not in HEADS
    ],
)
def test_two_steps_with_a_short_class(method, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("audiodd_jax"), "propagate", True)
    own = SMALL_MATCHING if method in MATCHING else SMALL.get(method, {})
    size = {"coreset__samples_per_class": 0, "coreset__samples": 14}
    steps = {"loop__steps": 2, "loop__keep": "last", "augment__time_shift": 0.0}
    config = settings(method=method, **{**own, **size, **steps})
    found = loop.distill(config, short())
    assert np.bincount(found.classes).tolist() == [6, 5, 3]
    assert found.best.images.shape[0] == found.best.labels.shape[0] == 14
    assert np.isfinite(found.best.images).all()
    expected = centred_targets(jnp.asarray(found.classes), 3)
    if method != "rfad":
        np.testing.assert_allclose(found.start.labels, expected, atol=1e-6)
    if method not in SELECTION:
        change = np.abs(found.best.images - found.start.images).max((1, 2, 3))
        assert (change > 0).all()
    assert "too few training clips, so all are taken: c 3 of 4" in caplog.text


@pytest.mark.parametrize("method", ["dc", "dm"])
def test_padding_changes_neither_losses_nor_gradients(x64, method):
    """The images of a class move as they do without those of other classes."""
    rate = {"matching__learning_rate": 1e-3, "matching__outer_loop": 1}
    batch, start = problem(per_class=3)
    keep = np.array([0, 3, 4, 6, 7, 8])  # one, two and three of the classes
    few = start._replace(images=start.images[keep], labels=start.labels[keep])
    steps = {}
    for sizes, arrays in (((1, 2, 3), few), ((3, 3, 3), start)):
        built = make(method, per_class=sizes, **rate, siamese__noise_db=0.0)
        state = built.init(jax.random.key(0), arrays)
        after, metrics = jax.jit(built.step)(state, batch)
        steps[sizes] = np.asarray(after.images), metrics
    # The last class has as many images in both.
    np.testing.assert_allclose(steps[1, 2, 3][0][3:], steps[3, 3, 3][0][6:], atol=1e-12)
    # The others move as in a coreset with as many images of every class.
    for count, rows, pick in (
        (1, slice(0, 1), np.array([0, 3, 6])),
        (2, slice(1, 3), np.array([0, 1, 3, 4, 6, 7])),
    ):
        alone = start._replace(images=start.images[pick], labels=start.labels[pick])
        built = make(method, per_class=(count,) * 3, **rate, siamese__noise_db=0.0)
        state = built.init(jax.random.key(0), alone)
        after, _ = jax.jit(built.step)(state, batch)
        first = (count - 1) * count  # that of the first class, or of the second
        expected = after.images[first : first + count]
        np.testing.assert_allclose(steps[1, 2, 3][0][rows], expected, atol=1e-12)


def test_weights_of_the_mean():
    values = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_allclose(matching_methods.mean(values, None), [2, 3])
    weights = jnp.array([1.0, 1.0, 0.0])
    np.testing.assert_allclose(matching_methods.mean(values, weights), [1, 2])


@pytest.mark.parametrize("method", ["rfad", "dm"])
def test_a_multiple_of_the_classes_gives_the_coreset_of_that_many_each(method):
    own = SMALL_MATCHING if method in MATCHING else {}
    steps = {"loop__steps": 2, "loop__eval_every": 2, "augment__time_shift": 0.0}
    sizes = (
        {"coreset__samples_per_class": 2},
        {"coreset__samples_per_class": 0, "coreset__samples": 6},
    )
    first, second = (
        loop.distill(settings(method=method, **{**own, **size, **steps}), data())
        for size in sizes
    )
    assert_same(first.best, second.best)
    np.testing.assert_array_equal(first.classes, second.classes)
