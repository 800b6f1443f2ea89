"""KIP: gradients, learning, and resuming."""

import checks
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_loop import assert_same, data, run, settings

from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation import kip, rfad
from audiodd_jax.distillation.cost import Sizes
from audiodd_jax.distillation.kernel_methods import Params
from audiodd_jax.distillation.method import Context
from audiodd_jax.errors import UserError
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.labels import centred_targets
from audiodd_jax.kernels import infinite_width

CONTEXT = Context(Sizes(8, 8, 3, 6, 30, 30, 0), data().normalization)
SMALL = {
    "method": "kip",
    "network__depth": 1,
    "loop__batch_size": 8,
    "loop__steps": 6,
    "augment__time_shift": 0.0,
}


def problem(dtype=jnp.float32, b=7, s=3):
    keys = jax.random.split(jax.random.key(0), 3)
    params = Params(
        jax.random.normal(keys[0], (s, 8, 8, 1), dtype),
        0.3 * jax.random.normal(keys[1], (s, 3), dtype),
        jnp.asarray(0.2, dtype),
    )
    images = jax.random.normal(keys[2], (b, 8, 8, 1), dtype)
    return params, Clips(images, (jnp.arange(b) % 3).astype(jnp.int32))


def plain_loss(params, kernel, batch, config):
    """Computes the loss from its formulas, all pairs at once."""
    images, labels, _ = CoresetArrays(*params[:3]).unpack(config.coreset.factor)
    k_bs, k_ss = kernel(batch.images, images), kernel(images, images)
    s = k_ss.shape[0]
    k_ss += config.rfad.regularizer * jnp.trace(k_ss) / s * jnp.eye(s)
    y_hat = k_bs @ jnp.linalg.solve(k_ss, labels)
    if config.rfad.loss == "mse":
        targets = centred_targets(batch.labels, 3, y_hat.dtype)
        return 0.5 * jnp.mean((targets - y_hat) ** 2)
    scores = jax.nn.log_softmax(jnp.exp(params.log_scale) * y_hat)
    return -jnp.mean(scores[jnp.arange(batch.labels.size), batch.labels])


@pytest.mark.parametrize(
    ("kind", "loss", "factor", "pairs"),
    [("nngp", "mse", 1, 4), ("ntk", "platt", 2, 100)],
)
def test_gradients_match_the_formulas(kind, loss, factor, pairs):
    # In float32: XLA:CPU of jax 0.10 reads outside of a buffer in the gradient of an
    # untiled kernel in float64, on machines with AVX-512.
    config = settings(
        **SMALL, kip__kernel=kind, rfad__loss=loss, coreset__factor=factor
    )
    params, batch = problem()
    kernel = infinite_width.make_kernel(config.network, kind)
    kernels = kip.make_kernels(kernel, pairs)
    loss_of = lambda params: rfad.loss(
        params, jax.random.key(0), batch, kernels, config.rfad, factor
    )[0]
    found, grads = jax.jit(jax.value_and_grad(loss_of))(params)
    value, expected = jax.jit(
        jax.value_and_grad(lambda params: plain_loss(params, kernel, batch, config))
    )(params)
    assert float(found) == pytest.approx(float(value), rel=1e-4)
    assert (float(grads.log_scale) != 0) == (loss == "platt")
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        scale = float(jnp.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-3 * scale)


@pytest.mark.slow
def test_it_learns_and_settings_reach_it():
    params, _ = problem()
    batch = data(noise=2.0).train
    steps = {}
    for kind in ("nngp", "ntk"):
        config = settings(
            **SMALL, kip__kernel=kind, optimizer__learning_rate=0.05, kip__pairs=64
        )
        method = kip.make(config, CONTEXT)
        state = method.init(jax.random.key(0), CoresetArrays(*params[:3]))
        step, losses = jax.jit(method.step), []
        for _ in range(20):
            state, metrics = step(state, batch)
            losses.append(float(metrics["loss"]))
        assert losses[-1] < 0.5 * losses[0]
        steps[kind] = losses
    assert steps["nngp"] != steps["ntk"]


@pytest.mark.optimized
def test_a_resumed_run_matches_an_uninterrupted_one(tmp_path):
    config = settings(**SMALL, loop__checkpoint_every=2, loop__eval_every=2)
    whole = run(tmp_path / "whole", config)
    with checks.killed_at(4):
        run(tmp_path / "killed", config)
    resumed = run(tmp_path / "killed", config)
    assert_same(whole.best, resumed.best)
    assert [row["step"] for row in resumed.history] == [0, 2, 4, 6]


def test_impossible_settings_are_one_sentence(monkeypatch):
    with pytest.raises(UserError, match="precision=bfloat16 is for random networks"):
        kip.make(settings(**SMALL, network__precision="bfloat16"), CONTEXT)
    monkeypatch.setattr(infinite_width, "memory_of", lambda device: 100_000)
    with pytest.raises(UserError, match="exact kernel of one pair of spectrograms"):
        kip.make(settings(**SMALL), CONTEXT)
