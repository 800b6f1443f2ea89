"""FRePo: loss in NumPy, gradients, the life of its networks, and resuming."""

import checks
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_loop import assert_same, data, run, settings

from audiodd_jax.coreset import selection
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation import frepo, matching_methods, registry
from audiodd_jax.distillation.cost import Sizes
from audiodd_jax.distillation.kernel_methods import Params
from audiodd_jax.distillation.method import Context
from audiodd_jax.features.clips import Clips
from audiodd_jax.kernels.random_kernels import Plan

SIZES = Sizes(8, 8, 3, 6, 30, 30, 0)
SMALL = {
    "method": "frepo",
    "frepo__depth": 2,
    "frepo__width": 4,
    "frepo__networks": 3,
    "frepo__max_age": 4,
    "augment__time_shift": 0.0,
}


def problem(dtype=jnp.float32, s=6, b=9):
    keys = jax.random.split(jax.random.key(0), 3)
    params = Params(
        jax.random.normal(keys[0], (s, 8, 8, 1), dtype),
        jax.nn.one_hot(jnp.arange(s) % 3, 3, dtype=dtype)
        + 0.6 * jax.random.normal(keys[1], (s, 3), dtype),
        jnp.zeros((), dtype),
    )
    images = jax.random.normal(keys[2], (b, 8, 8, 1), dtype)
    return params, Clips(images, (jnp.arange(b) % 3).astype(jnp.int32))


def network(config, dtype=jnp.float32):
    model = frepo.make_model(config.frepo, 3, dtype)
    images = jnp.zeros((1, 8, 8, 1), dtype)
    return model, matching_methods.fresh(jax.random.key(1), model, images)


def by_hand(params, kernel, batch, weight, regularizer):
    """Computes the loss of one block without normalisation, in NumPy."""

    def features(images):
        padded = np.pad(np.asarray(images)[..., 0], ((0, 0), (1, 1), (1, 1)))
        found = np.zeros((images.shape[0], 8, 8, kernel["kernel"].shape[-1]))
        for i in range(3):
            for j in range(3):
                part = padded[:, i : i + 8, j : j + 8, None]
                found += part * np.asarray(kernel["kernel"])[i, j, 0]
        found = np.maximum(found + np.asarray(kernel["bias"]), 0)
        pooled = found.reshape(images.shape[0], 4, 2, 4, 2, -1).mean((2, 4))
        return pooled.reshape(images.shape[0], -1)

    phi_b, phi_s = features(batch.images), features(params.images)
    k_ss, labels = phi_s @ phi_s.T, np.asarray(params.labels)
    ridged = k_ss + regularizer * np.trace(k_ss) / len(k_ss) * np.eye(len(k_ss))
    y_hat = phi_b @ phi_s.T @ np.linalg.inv(ridged) @ labels
    y_b = np.eye(3)[np.asarray(batch.labels)] - 1 / 3
    margins = [min(row[-1] - row[-2], 1 / 3) for row in np.sort(labels, 1)]
    return 0.5 * ((y_b - y_hat) ** 2).sum(1).mean() - weight * np.mean(margins), y_hat


def test_the_loss_matches_its_formulas(x64):
    config = settings(
        **SMALL, frepo__norm="none", frepo__margin_weight=0.7, frepo__regularizer=0.02
    )
    config.frepo.depth = 1
    model, theta = network(config, jnp.float64)
    theta["Conv_0"]["bias"] += 0.1
    params, batch = problem(jnp.float64)
    kernels = frepo.make_kernels(model)
    value, y_hat = frepo.loss(params, theta, batch, kernels, config.frepo)
    expected, predicted = by_hand(params, theta["Conv_0"], batch, 0.7, 0.02)
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    np.testing.assert_allclose(y_hat, predicted, rtol=1e-8, atol=1e-12)


def test_the_margin_ends_at_one_over_the_classes():
    labels = jnp.array([[0.5, 0.1, 0.4], [-0.2, 0.9, 0.1], [0.3, 0.3, 0.0]])
    np.testing.assert_allclose(frepo.margin(labels), [0.1, 1 / 3, 0], atol=1e-6)
    grads = jax.grad(lambda y: frepo.margin(y).sum())(labels[:2])
    np.testing.assert_array_equal(grads, [[1, 0, -1], [0, 0, 0]])


@pytest.mark.parametrize(("norm", "plan"), [("instance", (4, 2)), ("none", (0, 0))])
def test_gradient_by_finite_differences(norm, plan, x64):
    config = settings(**SMALL, frepo__norm=norm, coreset__factor=2)
    model, theta = network(config, jnp.float64)
    params, batch = problem(jnp.float64)
    kernels = frepo.make_kernels(model, plan=Plan(*plan))
    value = lambda p: frepo.loss(p, theta, batch, kernels, config.frepo, 2)[0]
    checks.assert_gradient(value, params)


def test_chunks_change_rounding_only_and_kernels_may_be_wider(x64):
    model, theta = network(settings(**SMALL))
    params, batch = problem()
    whole, parts = (
        jax.jit(frepo.make_kernels(model, kind, plan))(
            theta, batch.images, params.images
        )
        for plan, kind in ((Plan(), jnp.float64), (Plan(4, 4), jnp.float32))
    )
    for a, b in zip(whole, parts, strict=True):
        assert (a.dtype, b.dtype) == (jnp.float64, jnp.float32)
        np.testing.assert_allclose(a, b, rtol=1e-5)


def take(pool, index):
    """Returns a network of the pool."""
    return jax.tree.map(lambda x: x[index], pool)


def advance(config, steps):
    """Returns the states of a run on one batch."""
    params, _ = problem()
    prepared = data(noise=2.0)
    batch = prepared.train
    method = frepo.make(config, Context(SIZES, prepared.normalization))
    states = [method.init(jax.random.key(0), CoresetArrays(*params[:3]))]
    step = jax.jit(method.step)
    for _ in range(steps):
        states.append(step(states[-1], batch)[0])
    return states


def test_the_pool_has_all_ages_and_its_networks_are_trained_and_renewed():
    config = settings(
        **SMALL, frepo__network_learning_rate=0.01, coreset__learn_labels=False
    )
    config.frepo.max_age = 5
    states = advance(config, 16)
    ages = np.array([state.pool.age for state in states])
    np.testing.assert_array_equal(ages[0], [0, 1, 3])
    model = frepo.make_model(config.frepo, 3)
    coreset = lambda state: (state.learnt.params.images, state.learnt.params.labels)
    error = lambda state, i, by: float(
        frepo.training_loss(take(state.pool, i).params, model, *coreset(by))
    )
    changes, drawn, falls = np.diff(ages, axis=0), set(), []
    for before, after, change in zip(states, states[1:], changes, strict=False):
        (own,) = map(int, np.flatnonzero(change))  # one network a step
        drawn.add(own)
        others = [i for i in range(3) if i != own]
        for i in others:
            assert_same(*(take(s.pool, i) for s in (before, after)))
        if change[own] == 1:
            falls.append(error(before, own, after) - error(after, own, after))
        else:
            assert int(before.pool.age[own]) == 4
            assert int(after.pool.age[own]) == 0
            moment = optax.tree.norm(take(after.pool, own).opt_state[0].mu)
            assert float(moment) == 0
    # Labels do not change unless they are learnt.
    assert_same(*(states[i].learnt.params.labels for i in (0, -1)))
    assert drawn == {0, 1, 2}
    assert min(falls) > 0
    assert (changes < -1).sum() >= 2
    # Every renewed network is new.
    heads = [np.asarray(s.pool.params["Head_0"]["Dense_0"]["kernel"]) for s in states]
    renewed = [h[i] for h, c in zip(heads[1:], changes, strict=True)
               for i in np.flatnonzero(c < 0)]  # fmt: skip
    seen = [*heads[0], *renewed]
    assert len({array.tobytes() for array in seen}) == len(seen)


def test_networks_of_the_first_pool_were_trained_for_their_age():
    config = settings(**SMALL, frepo__network_learning_rate=0.01)
    model = frepo.make_model(config.frepo, 3)
    params, _ = problem()
    coreset = CoresetArrays(*params[:3])
    pool = frepo.make_pool(model, config.frepo)
    key = jax.random.key(5)
    members = pool.init(key, coreset)
    own = jax.random.fold_in(key, 2)
    theta = matching_methods.fresh(own, model, coreset.images)
    member = frepo.Member(theta, optax.adam(0.01).init(theta), jnp.zeros((), jnp.int32))
    step = jax.jit(pool.advance)
    for i in range(2):
        member = step(member, jax.random.fold_in(own, i), coreset)
    assert int(members.age[2]) == 2
    for a, b in zip(
        jax.tree.leaves(take(members, 2)),
        jax.tree.leaves(member),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_loss_falls_and_more_clips_are_recognised():
    config = settings(**SMALL)
    config.frepo.width, config.frepo.max_age, config.loop.steps = 16, 20, 80
    prepared = data(noise=2.0)
    context = Context(SIZES, prepared.normalization, plan=Plan(8, 4))
    method = frepo.make(config, context)
    start = selection.start(
        jax.random.key(0),
        prepared.train,
        prepared.class_names,
        np.full(3, 2),
        config.coreset,
    )
    state = method.init(jax.random.key(0), start)
    steps = jax.jit(
        lambda state: jax.lax.scan(
            lambda s, _: method.step(s, prepared.train), state, None, length=80
        )
    )
    state, metrics = steps(state)
    losses = np.asarray(metrics["loss"]) + 1 / 3  # the margin is at its largest
    assert losses[-20:].mean() < 0.9 * losses[:20].mean()
    right = np.asarray(metrics["batch_accuracy"])
    assert right[-20:].mean() > right[:20].mean() + 0.05


@pytest.mark.optimized
def test_a_resumed_run_matches_an_uninterrupted_one(tmp_path):
    config = settings(**SMALL, loop__keep="last")
    whole = run(tmp_path / "whole", config)
    with checks.killed_at(6):
        run(tmp_path / "killed", config)
    resumed = run(tmp_path / "killed", config)
    assert_same(whole.best, resumed.best)
    for name in ("images", "labels"):
        both = (getattr(arrays, name) for arrays in (whole.best, whole.start))
        assert np.abs(np.subtract(*both)).max() > 0
    losses = lambda found: [row.get("loss") for row in found.history]
    assert losses(whole) == losses(resumed)


def test_advice_names_its_own_regulariser():
    assert "frepo.regularizer" in registry.advice("frepo")
    assert "rfad.regularizer" in registry.advice("kip")
