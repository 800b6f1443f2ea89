"""Fused batch norm, ReLU and pooling against the layers of Flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.networks import classifier
from audiodd_jax.networks.classifier import ConvNet
from audiodd_jax.networks.pooling import average_pool, batch_norm_pool


def case(shape, dtype=None):
    keys = jax.random.split(jax.random.key(0), 3)
    x = 2 + 3 * jax.random.normal(keys[0], shape)
    scale, bias = jax.random.normal(keys[1], (2, shape[-1]))
    out = (shape[0], shape[1] // 2, shape[2] // 2, shape[3])
    ct = jax.random.normal(keys[2], out)
    return (x.astype(dtype or x.dtype), scale, bias), ct


def by_flax(x, scale, bias):
    norm = nn.BatchNorm(use_running_average=False, momentum=0.9, dtype=x.dtype)
    zeros, ones = jnp.zeros(x.shape[-1]), jnp.ones(x.shape[-1])
    statistics = {"mean": zeros, "var": ones}
    variables = {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": statistics,
    }
    y, updated = norm.apply(variables, x, mutable=["batch_stats"])
    return average_pool(nn.relu(y)), updated["batch_stats"]


@pytest.mark.parametrize("shape", [(3, 4, 6, 5), (1, 2, 2, 1), (2, 16, 8, 3)])
def test_values_and_gradients_match_the_layers(shape, x64):
    inputs, ct = case(shape)
    ours, back = jax.vjp(lambda *a: batch_norm_pool(*a)[0], *inputs)
    theirs, derived = jax.vjp(lambda *a: by_flax(*a)[0], *inputs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    for a, b in zip(back(ct), derived(ct), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def test_second_gradients_match_the_layers(x64):
    inputs, ct = case((2, 4, 6, 3))

    def second(function):
        inner = lambda *a: jnp.vdot(ct, jnp.sin(function(*a)[0]))
        outer = lambda *a: sum(
            jnp.sum(jnp.cos(g)) for g in jax.grad(inner, (0, 1, 2))(*a)
        )
        return jax.grad(outer, (0, 1, 2))(*inputs)

    for a, b in zip(second(batch_norm_pool), second(by_flax), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)


def test_bfloat16_keeps_its_type_and_sums_in_float32():
    (x, scale, bias), ct = case((4, 8, 8, 3), jnp.bfloat16)
    (out, mean, var), back = jax.vjp(batch_norm_pool, x, scale, bias)
    assert (out.dtype, mean.dtype, var.dtype) == (x.dtype, "float32", "float32")
    zero = jnp.zeros_like(mean)
    ours = back((ct.astype(x.dtype), zero, zero))
    derived = jax.vjp(lambda *a: by_flax(*a)[0], x.astype(float), scale, bias)[1](ct)
    assert ours[0].dtype == x.dtype
    for a, b in zip(ours, derived, strict=True):
        error = np.abs(np.asarray(a, np.float32) - b).max()
        assert error < 0.03 * np.abs(b).max()


@pytest.mark.parametrize("side", [8, 9])  # an odd side takes the plain layers
def test_statistics_and_gradients_of_a_network(side):
    model = ConvNet(4, depth=2, width=3)
    keys = jax.random.split(jax.random.key(1), 2)
    x = jax.random.normal(keys[0], (5, side, 12, 1))
    variables = model.init(keys[1], x, train=False)
    apply = lambda params, x: model.apply(
        variables | {"params": params}, x, train=True, mutable=["batch_stats"]
    )

    def with_plain_layers(*args):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(classifier, "POOL", 1000)  # no side is a multiple of the pool
            return apply(*args)

    # A head of zeros would pass no gradient.
    params = jax.tree.map(lambda p: p + 0.1, variables["params"])
    found, expected = apply(params, x), with_plain_layers(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), found, expected)
    grads = [
        jax.grad(lambda p: jnp.sum(f(p, x)[0] ** 2))(params)  # noqa: B023
        for f in (apply, with_plain_layers)
    ]
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, *grads)
