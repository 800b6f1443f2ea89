import checks
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.config import Config, fields
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation import rfad
from audiodd_jax.distillation.cost import Sizes
from audiodd_jax.distillation.kernel_methods import Params
from audiodd_jax.distillation.method import Context
from audiodd_jax.errors import UserError
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.labels import centred_targets
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.kernels import random_kernels
from audiodd_jax.kernels.random_kernels import Plan

STATS = Normalization(np.zeros(8, np.float32), np.ones(8, np.float32))
CONTEXT = Context(Sizes(8, 12, 3, 6, 10, 10, 0), STATS)
SMALL = {
    "network.depth": 2,
    "network.width": 6,
    "network.output_dim": 24,
    "rfad.networks": 3,
    "loop.steps": 20,
}


def settings(**changes):
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return fields.replace(Config(), {**SMALL, **dotted})


def problem(s=6, b=10, c=3, shape=(8, 12), dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 2)
    start = CoresetArrays(
        jax.random.normal(keys[0], (s, *shape, 1), dtype),
        centred_targets(jnp.arange(s) % c, c, dtype),
        jnp.zeros((), dtype),
    )
    images = jax.random.normal(keys[1], (b, *shape, 1), dtype)
    return start, Clips(images, (jnp.arange(b) % c).astype(jnp.int32))


def kernels_of(config, plan=Plan()):  # noqa: B008 (a NamedTuple)
    settings = config.rfad
    return random_kernels.make(config.network, settings.networks, plan=plan)


@pytest.mark.parametrize("loss", ["mse", "platt"])
@pytest.mark.parametrize("readout", ["flatten", "dense", "time_mean"])
@pytest.mark.parametrize("preconditioner", [False, True])
def test_gradient_by_finite_differences(loss, readout, preconditioner, x64):
    # The golden step has every plan.
    plan = Plan(4, 2, "nothing") if preconditioner else Plan()
    config = settings(rfad__loss=loss, network__readout=readout)
    start, batch = problem(dtype=jnp.float64)
    params = Params(*start)
    if preconditioner:
        rng = np.random.default_rng(0)
        near_identity = lambda n: jnp.asarray(np.eye(n) + 0.1 * rng.normal(size=(n, n)))
        params = params._replace(mel_map=near_identity(8), time_map=near_identity(12))
    kernels, key = kernels_of(config, plan), jax.random.key(1)
    value = lambda p: rfad.loss(p, key, batch, kernels, config.rfad)[0]
    checks.assert_gradient(value, params)


def run(config, steps=20, **kwargs):
    start, batch = problem(**kwargs)
    method = rfad.make(config, CONTEXT)
    state = method.init(jax.random.key(3), start)
    step = jax.jit(method.step)
    losses = []
    for _ in range(steps):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return start, method, state, losses


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rfad__loss": "platt"},
        {"network__readout": "dense"},
        {"network__readout": "time_mean"},
        {"coreset__preconditioner": True},
        {"optimizer__schedule": "cosine"},
    ],
)
def test_the_loss_falls(changes):
    _, _, state, losses = run(settings(optimizer__learning_rate=3e-2, **changes))
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])
    assert int(state.step) == 20


def test_labels_are_fixed_unless_learnt():
    start, method, state, _ = run(settings(coreset__learn_labels=False), steps=3)
    after = method.coreset(state)
    np.testing.assert_array_equal(after.labels, start.labels)
    assert np.abs(after.images - start.images).max() > 0


def test_platt_scale_is_learnt_at_its_own_rate():
    config = settings(rfad__loss="platt", optimizer__platt_learning_rate=0.0)
    _, method, state, _ = run(config, steps=3)
    assert float(method.coreset(state).log_scale) == 0
    _, method, state, _ = run(settings(rfad__loss="platt"), steps=3)
    assert float(method.coreset(state).log_scale) != 0


def test_the_preconditioner_is_in_the_coreset():
    _, method, state, _ = run(settings(coreset__preconditioner=True), steps=3)
    params = state.params
    expected = jnp.einsum(
        "gf,sft,ut->sgu", params.mel_map, params.images[..., 0], params.time_map
    )
    np.testing.assert_allclose(
        method.coreset(state).images[..., 0], expected, rtol=1e-4, atol=1e-5
    )
    assert np.abs(params.mel_map - np.eye(8)).max() > 1e-4


def test_every_step_draws_new_networks():
    config = settings(optimizer__learning_rate=1e-30)
    _, _, _, losses = run(config, steps=4)
    assert len(set(losses)) == 4


def test_predictions_are_invariant_to_the_order_of_the_coreset():
    config = settings()
    start, batch = problem()
    order = jnp.array([3, 0, 5, 1, 4, 2])

    def predict(arrays):
        params = Params(*arrays)
        kernels, key = kernels_of(config), jax.random.key(1)
        return rfad.loss(params, key, batch, kernels, config.rfad)[1]

    shuffled = CoresetArrays(start.images[order], start.labels[order], start.log_scale)
    np.testing.assert_allclose(predict(start), predict(shuffled), rtol=1e-3, atol=1e-5)


def test_a_nested_coreset_learns_from_its_prefixes():
    config = settings(coreset__nested=True, coreset__learn_labels=False)
    start, batch = problem()
    context = CONTEXT._replace(sizes=CONTEXT.sizes._replace(per_class=(3, 2, 1)))
    method = rfad.make(config, context)
    step, found = jax.jit(method.step), set()
    for seed in range(12):
        state = step(method.init(jax.random.key(seed), start), batch)[0]
        moved = jnp.abs(state.params.images - start.images).max((1, 2, 3)) > 0
        found.add(tuple(np.flatnonzero(moved).tolist()))
    # Of the classes a, a, a, b, b, c: the first of each, the first two, or all.
    assert found == {(0, 3, 5), (0, 1, 3, 4, 5), (0, 1, 2, 3, 4, 5)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "frepo"}, "frepo does not learn nested coresets"),
        ({"coreset.samples": 30, "coreset.samples_per_class": 0}, "equally many"),
    ],
)
def test_nested_settings_that_do_not_fit_are_named(changes, message):
    config = fields.replace(Config(), {"coreset.nested": True, **changes})
    with pytest.raises(UserError, match=message):
        fields.validate(config)
