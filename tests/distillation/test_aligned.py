"""The loss of labelled views: its gradient, its limits, runs with a small teacher."""

import dataclasses
import functools

import checks
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_loop import assert_same, data, settings
from test_rfad import CONTEXT, kernels_of, problem
from test_rfad import settings as small

from audiodd_jax.config import ViewsConfig, fields, presets
from audiodd_jax.config.settings import AugmentConfig
from audiodd_jax.distillation import aligned, loop, rfad
from audiodd_jax.distillation.kernel_methods import Params
from audiodd_jax.errors import UserError
from audiodd_jax.kernels.random_kernels import Plan
from audiodd_jax.networks.models import Ensemble, Network, Variables
from audiodd_jax.runtime.run_directory import RunDirectory

UNCHANGED = ViewsConfig(mixed=0.0, augment=AugmentConfig())
ALIGNED = {
    "rfad__views": 2,
    "teacher__networks": 2,
    "coreset__learn_labels": False,
    "loop__keep": "last",
}


def linear_teacher(shape=(8, 12), c=3, dtype=jnp.float32, link=jax.nn.softmax):
    """A teacher whose logits are linear."""
    pixels = int(np.prod(shape))
    weights = jax.random.normal(jax.random.key(5), (pixels, c), dtype) / pixels**0.5

    def predict(networks, images):
        return link(images.reshape(len(images), -1) @ networks.variables.params)

    return Ensemble(network(weights), predict)


def network(params):
    return Network(Variables(params, {}), None)


def value_of(config, views, teacher, count=2, plan=Plan(), factor=1):  # noqa: B008
    """The loss as a function of the parameters, and the batch's predictions."""
    batch = problem(dtype=teacher.networks.variables.params.dtype)[1]
    context = CONTEXT._replace(teacher=teacher, plan=plan)
    make = aligned.make_views(views, context)
    loss_from = functools.partial(
        rfad.loss_from, kernels=kernels_of(config, plan), settings=config.rfad
    )
    settings = dataclasses.replace(config.rfad, views=count * factor)
    given = (jax.random.key(1), batch, teacher.networks, make, settings, loss_from)
    return lambda params: aligned.loss(params, *given, factor)


@pytest.mark.parametrize("loss", ["mse", "platt"])
def test_gradient_by_finite_differences(loss, x64):
    """Through kernels, labels, augmentation, mixing and packing."""
    teacher, config = linear_teacher(dtype=jnp.float64), small(rfad__loss=loss)
    plan = Plan(4, 2, "nothing") if loss == "platt" else Plan()
    of = functools.partial(value_of, config, ViewsConfig(), factor=2, plan=plan)
    params = Params(*problem(dtype=jnp.float64)[0])
    checks.assert_gradient(lambda p: of(teacher)(p)[0], params)
    # Each way counts: without the gradient of the labels it is another.
    images_only = lambda w, x: teacher.predict(w, jax.lax.stop_gradient(x))
    blind = teacher._replace(predict=images_only)
    gradient = lambda teacher: jax.grad(lambda p: of(teacher)(p)[0])(params)
    whole, part = gradient(teacher), gradient(blind)
    assert float(jnp.abs(whole.images - part.images).max()) > 1e-6
    assert float(jnp.abs(whole.labels).max()) == 0


def test_unchanged_views_with_the_coreset_s_labels_are_rfad():
    config, (start, batch) = small(), problem()
    known = start.labels + 1 / 3  # in the order of the spectrograms
    teacher = Ensemble(network(known), lambda networks, _: networks.variables.params)
    found, y_hat = value_of(config, UNCHANGED, teacher, 1)(Params(*start))
    _, key = jax.random.split(jax.random.key(1))
    expected = rfad.loss(Params(*start), key, batch, kernels_of(config), config.rfad)
    np.testing.assert_allclose(found, expected[0], rtol=1e-5)
    np.testing.assert_allclose(y_hat, expected[1], atol=1e-5)


def test_views_are_drawn_anew_and_labelled():
    teacher, images = linear_teacher(), problem()[0].images
    make = aligned.make_views(ViewsConfig(), CONTEXT._replace(teacher=teacher))
    views = lambda seed: make(jax.random.key(seed), images, teacher.networks, 3)
    drawn, labels = views(0)
    assert drawn.shape == (18, 8, 12, 1)
    parts = drawn.reshape(3, 6, 8, 12)
    assert (jnp.abs(parts[0] - parts[1]).max((1, 2)) > 0).all()
    expected = teacher.predict(teacher.networks, drawn) - 1 / 3
    np.testing.assert_allclose(labels, expected, atol=1e-6)
    other, _ = views(1)
    assert (jnp.abs(other - drawn).max((1, 2, 3)) > 0).all()


def test_views_stay_in_float32_beside_kernels_in_float64(x64):
    teacher, images = linear_teacher(), problem()[0].images
    make = aligned.make_views(ViewsConfig(), CONTEXT._replace(teacher=teacher))
    drawn, labels = make(jax.random.key(0), images, teacher.networks, 2)
    assert (drawn.dtype, labels.dtype) == (jnp.float32, jnp.float32)


def test_packed_spectrograms_share_the_views_of_their_image():
    (start, batch), teacher, found = problem(), linear_teacher(), []

    def make(key, images, networks, count):
        found.append((len(images), count))
        return images, jnp.zeros((len(images), 3))

    for views, factor in ((4, 1), (4, 2), (1, 2)):
        settings = small(rfad__views=views).rfad
        loss_from = lambda support, *_: (support.images.sum(), support.labels)
        given = (jax.random.key(1), batch, teacher.networks, make, settings, loss_from)
        aligned.loss(Params(*start), *given, factor)
    assert found == [(6, 4), (12, 2), (12, 1)]


def run(path, config, prepared, teacher):
    with RunDirectory(path, dataclasses.asdict(config)) as directory:
        return loop.distill(config, prepared, directory, teacher=teacher)


@pytest.mark.optimized
def test_a_resumed_run_matches_an_uninterrupted_one(tmp_path):
    """It continues with the networks of its start, whatever the cache has now."""
    config, teacher = settings(**ALIGNED), linear_teacher((8, 8))
    whole = run(tmp_path / "whole", config, data(), teacher)
    with checks.killed_at(6):
        run(tmp_path / "killed", config, data(), teacher)
    other = teacher._replace(networks=jax.tree.map(jnp.negative, teacher.networks))
    resumed = run(tmp_path / "killed", config, data(), other)
    assert_same(whole.best, resumed.best)
    assert whole.best_step == 12
    np.testing.assert_array_equal(whole.best.labels, whole.start.labels)
    assert np.abs(whole.best.images - whole.start.images).max() > 0
    assert not teacher.networks.variables.params.is_deleted()


def test_the_loss_falls_for_tags():
    config = settings(**ALIGNED, loop__steps=24)
    teacher = linear_teacher((8, 8), link=jax.nn.sigmoid)
    found = loop.distill(config, checks.tagged(), teacher=teacher)
    losses = [row["loss"] for row in found.history if "loss" in row]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


@pytest.mark.parametrize("name", ["tones", "urbansound8k", "tfds:any"])
def test_the_transfer_preset_distils_views_by_rfad_alone(name):
    config = presets.for_dataset(name, "transfer")
    fields.validate(config)
    assert config.is_aligned
    other = presets.for_dataset(name, "transfer", method="frepo")
    fields.validate(other)
    assert other.rfad == dataclasses.replace(config.rfad, views=0)
    assert other.loop.steps == presets.for_dataset(name).loop.steps


def test_settings_that_do_not_fit_are_named():
    config = settings(**ALIGNED)
    for changes, message in (
        ({"teacher.networks": 0}, "rfad.views are labelled by a teacher"),
        ({"coreset.learn_labels": True}, "set coreset.learn_labels to false"),
    ):
        with pytest.raises(UserError, match=message):
            fields.validate(fields.replace(config, changes))
    # Other methods do not read it.
    fields.validate(fields.replace(config, {"method": "frepo", "teacher.networks": 0}))
