"""Gradient and distribution matching: golden numbers, gradients, schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.config import presets
from audiodd_jax.config.packing import Packing
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation import (
    distribution_matching,
    gradient_matching,
    matching_methods,
)
from audiodd_jax.distillation.cost import Sizes
from audiodd_jax.distillation.method import Context
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.labels import centred_targets
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.networks import models
from audiodd_jax.networks.classifier import ConvNet

STATS = Normalization(np.zeros(8, np.float32), np.full(8, 10, np.float32))
SMALL = {"matching__depth": 2, "matching__width": 4, "matching__real_per_class": 5}


@pytest.mark.optimized
@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_golden_numbers(golden, float64, kind):
    numbers = golden("gradient_matching.npz")
    tolerance = {"float64": 1e-9, "float32": 1e-4}[kind]
    with float64(kind == "float64"):
        array = lambda a: jnp.asarray(a, kind)
        layers = {}
        for block, at in enumerate((0, 4, 8)):
            kernel = numbers[f"param/features_{at}_weight"].transpose(2, 3, 1, 0)
            # A bias before an instance norm changes nothing: ours has none.
            layers[f"Conv_{block}"] = {"kernel": array(kernel)}
            layers[f"GroupNorm_{block}"] = {
                "scale": array(numbers[f"param/features_{at + 1}_weight"]),
                "bias": array(numbers[f"param/features_{at + 1}_bias"]),
            }
        # Features are flattened with the channels last here, and first there.
        head = numbers["param/classifier_weight"].reshape(4, 8, 4, 4)
        head = head.transpose(2, 3, 1, 0).reshape(-1, 4)
        bias = array(numbers["param/classifier_bias"])
        layers["Head_0"] = {"Dense_0": {"kernel": array(head), "bias": bias}}
        model = ConvNet(
            4, depth=3, width=8, norm="instance", readout="flatten", dtype=kind
        )
        real = array(numbers["x_real_per_class_nchw"].transpose(0, 1, 3, 4, 2))
        synthetic = array(numbers["x_synthetic_nchw"].transpose(0, 2, 3, 1))
        synthetic = synthetic.reshape(4, 2, 32, 32, 1)
        # The published network pads the first convolution of single-channel images by
        # three pixels, ours by one: zeros around the images make up for it.
        padded = lambda x: jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))

        @jax.jit
        def of_class(label):
            return jax.value_and_grad(
                lambda x: gradient_matching.matching_loss(
                    layers, model, padded(real[label]), padded(x), label
                )
            )(synthetic[label])

        losses, grads = zip(*map(of_class, jnp.arange(4)), strict=True)
        expected = numbers["matching_loss_per_class"]
        np.testing.assert_allclose(losses, expected, rtol=tolerance)
        np.testing.assert_allclose(
            sum(losses), numbers["matching_loss"], rtol=tolerance
        )
        expected = numbers["grad_x_synthetic_nchw"].transpose(0, 2, 3, 1)
        scale = np.abs(expected).max()
        found = np.concatenate(grads) / scale
        np.testing.assert_allclose(found, expected / scale, rtol=0, atol=tolerance)


def problem(dtype=np.float64, per_class=2, factor=1):
    """Three classes of 8 x 8 spectrograms, each a bump at its own mel bin."""
    rng = np.random.default_rng(0)

    def clips(labels):
        images = 0.5 * rng.standard_normal((labels.size, 8, 8, 1))
        images[np.arange(labels.size), 1 + 2 * labels] += 1.5
        return jnp.asarray(images, dtype)

    real = np.repeat(np.arange(3), 5)
    synthetic = np.repeat(np.arange(3), per_class)
    batch = Clips(clips(real), jnp.asarray(real, jnp.int32))
    labels = centred_targets(jnp.asarray(synthetic), 3, dtype)
    start = jnp.asarray(rng.standard_normal((synthetic.size, 8, 8, 1)), dtype)
    return batch, CoresetArrays(start, labels, jnp.zeros((), dtype))


def make(method, mesh=None, per_class=(), **changes):
    config = presets.for_dataset("tones", method=method, **{**SMALL, **changes})
    module = distribution_matching if method == "dm" else gradient_matching
    dtype = np.float64 if jax.config.jax_enable_x64 else np.float32
    sizes = Sizes(
        8,
        8,
        3,
        6 * Packing.parse(config.coreset.factor).per_image,
        15,
        15,
        0,
        tuple(per_class),
    )
    context = Context(sizes, STATS, mesh, dtype=dtype)
    return module.make(config, context)


@pytest.mark.optimized
@pytest.mark.parametrize(
    ("method", "factor"),
    [("dc", 1), pytest.param("dsa", 2, marks=pytest.mark.slow), ("dm", 2)],
)
def test_a_step_follows_the_gradient_by_finite_differences(x64, method, factor):
    """The first change of the images is the slope of the loss (a second derivative)."""
    batch, start = problem()
    rate = 1e-3
    changes = {
        "matching__learning_rate": rate,
        "matching__outer_loop": 1,
        "coreset__factor": factor,
    }
    built = make(method, siamese__mode="all", **changes)
    step = jax.jit(built.step)
    state = built.init(jax.random.key(0), start)
    after, _ = step(state, batch)
    grads = (state.images - after.images) / rate
    rng, size = np.random.default_rng(1), 1e-7
    for _ in range(3):
        direction = jnp.asarray(rng.standard_normal(start.images.shape))
        value = lambda by, d=direction: (
            3
            * float(
                step(state._replace(images=state.images + by * d), batch)[1]["loss"]
            )
        )
        slope = (value(size) - value(-size)) / 2 / size
        assert abs(slope - float(jnp.vdot(grads, direction))) < 1e-5 * (1 + abs(slope))


def test_only_the_direction_of_each_output_counts():
    rng = np.random.default_rng(0)
    tree = lambda: {"w": jnp.asarray(rng.normal(size=(3, 4, 5))), "b": jnp.ones(5)}
    a, b = tree(), tree()
    distance = gradient_matching.distance
    assert distance(a, a) == pytest.approx(0, abs=1e-4)
    scaled = {"w": a["w"] * jnp.arange(1.0, 6), "b": -a["b"]}
    assert distance(a, scaled) == pytest.approx(0, abs=1e-4)  # biases do not count
    assert distance(a, {"w": -a["w"], "b": a["b"]}) == pytest.approx(10, rel=1e-3)
    assert 0 < distance(a, b) < 10
    dead = {"w": a["w"].at[..., 0].set(0), "b": a["b"]}
    grads = jax.grad(lambda x: distance(x, b))(dead)
    assert np.isfinite(grads["w"]).all()


def test_clips_of_a_class_affect_only_that_class():
    batch, start = problem(np.float32)
    built = make("dm")
    step, state = jax.jit(built.step), built.init(jax.random.key(0), start)
    whole, _ = step(state, batch)
    other = batch._replace(features=batch.images.at[:5].add(1.0))  # class 0
    changed, _ = step(state, other)
    same = np.abs(whole.images - changed.images).max(axis=(1, 2, 3)) == 0
    np.testing.assert_array_equal(same, [False, False, True, True, True, True])


@pytest.mark.parametrize(
    ("per_class", "loops"),
    [
        *((1, (1, 1)), (10, (10, 50)), (20, (20, 25)), (30, (30, 20)), (40, (40, 15))),
        *((50, (50, 10)), (5, (5, 23)), (15, (15, 38)), (200, (50, 10))),
    ],
)
def test_published_loops_for_any_number_of_samples(per_class, loops):
    config = presets.for_dataset("tones", method="dc", matching__inner_loop=0)
    assert gradient_matching.loops(per_class, config.matching) == loops
    config.matching.outer_loop, config.matching.inner_loop = 3, 7
    assert gradient_matching.loops(per_class, config.matching) == (3, 7)


def test_the_network_is_trained_between_steps_and_renewed():
    batch, start = problem(np.float32)
    changes = {"matching__outer_loop": 3, "matching__inner_loop": 8}
    built = make(
        "dc",
        **changes,
        matching__learning_rate=1e-9,
        matching__network_learning_rate=0.3,
    )
    step = jax.jit(built.step)
    config = presets.for_dataset("tones", **SMALL)
    model = matching_methods.make_model(config.matching, 3)
    classes = start.labels.argmax(1)
    state, losses = built.init(jax.random.key(0), start), []
    for _ in range(6):
        state, _ = step(state, batch)
        loss = gradient_matching.cross_entropy(
            state.network, model, state.images, classes
        )
        losses.append(float(loss))
    # Trained after the first and the second step, not after the third: then renewed.
    assert losses[1] < losses[0]
    assert losses[2] == losses[1]
    assert losses[4] < losses[3]
    assert losses[5] == losses[4]
    assert losses[3] != losses[0]


def test_dm_draws_a_network_a_step_and_never_trains_it():
    batch, start = problem(np.float32)
    built = make("dm")
    state = built.init(jax.random.key(0), start)
    state, _ = jax.jit(built.step)(state, batch)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 1)
    model = matching_methods.make_model(
        presets.for_dataset("tones", **SMALL).matching, 3
    )
    drawn = models.init(key, model, (8, 8)).params
    jax.tree.map(np.testing.assert_array_equal, state.network, drawn)


def test_dm_by_hand():
    batch, start = problem(np.float32)
    model = matching_methods.make_model(
        presets.for_dataset("tones", **SMALL).matching, 3
    )
    variables = models.init(jax.random.key(0), model, (8, 8))
    features = lambda x: models.embed(model, variables, x)[0]
    real, synthetic = batch.images[:5], start.images[:2]
    found = distribution_matching.matching_loss(
        variables.params, model, real, synthetic
    )
    gap = np.asarray(features(real)).mean(0) - np.asarray(features(synthetic)).mean(0)
    np.testing.assert_allclose(found, (gap**2).sum(), rtol=1e-4)


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.3), ("adam", 0.03)])
def test_the_loss_falls(optimizer, rate):
    batch, start = problem(np.float32)
    changes = {"matching__optimizer": optimizer, "matching__learning_rate": rate}
    built = make("dm", **changes)
    state = built.init(jax.random.key(0), start)
    steps = jax.jit(
        lambda state: jax.lax.scan(
            lambda s, _: built.step(s, batch), state, None, length=100
        )
    )
    _, metrics = steps(state)
    assert metrics["loss"][-10:].mean() < 0.8 * metrics["loss"][:10].mean()
