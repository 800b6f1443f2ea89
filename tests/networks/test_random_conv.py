import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.errors import UserError
from audiodd_jax.networks import random_conv, winograd


def plain_apply(params, x):
    """The network by its definition, which JAX differentiates."""
    for kernel, bias in zip(params.kernels, params.biases, strict=True):
        numbers = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=numbers
        )
        x = jax.nn.relu(x + bias)
        b, f, t, w = x.shape
        x = x[:, : f // 2 * 2, : t // 2 * 2]
        x = x.reshape(b, f // 2, 2, t // 2, 2, w).mean((2, 4))
    return x


# Odd sides lose a row or a column in the pooling.
@pytest.mark.parametrize(
    ("shape", "fast"),
    [((8, 8), False), ((9, 11), False), ((15, 8), False), ((9, 11), True)],
)
def test_features_and_input_gradient(shape, fast, x64, monkeypatch):
    if fast:  # the path for many channels, where the map is large enough
        monkeypatch.setattr(winograd, "CHANNELS", 1)
        monkeypatch.setattr(winograd, "TILES", 64)
    config = RandomNetworkConfig(depth=3, width=5)
    params = random_conv.init(jax.random.key(0), shape, config, jnp.float64)
    x = jax.random.normal(jax.random.key(1), (3, *shape, 1), jnp.float64)
    value = jax.jit(lambda x: random_conv.apply(params, x, config))(x)
    expected = jax.jit(plain_apply)(params, x).reshape(3, -1)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    assert value.shape[1] == random_conv.num_features(shape, config)

    ct = jax.random.normal(jax.random.key(2), value.shape, jnp.float64)
    ours = jax.vjp(lambda x: random_conv.apply(params, x, config), x)[1](ct)[0]
    plain = jax.vjp(lambda x: plain_apply(params, x).reshape(3, -1), x)[1](ct)[0]
    np.testing.assert_allclose(ours, plain, rtol=1e-10, atol=1e-14)


def test_input_gradient_by_finite_differences(x64):
    config = RandomNetworkConfig(depth=2, width=4)
    params = random_conv.init(jax.random.key(0), (6, 10), config, jnp.float64)
    x = jax.random.normal(jax.random.key(1), (2, 6, 10, 1), jnp.float64)
    f = jax.jit(lambda x: (random_conv.apply(params, x, config) ** 2).sum())
    check_grads(f, (x,), order=1, modes=["rev"], eps=1e-6, rtol=1e-6)


@pytest.mark.parametrize("readout", ["flatten", "time_mean", "dense"])
def test_readouts(readout):
    config = RandomNetworkConfig(depth=2, width=6, readout=readout, output_dim=7)
    params = random_conv.init(jax.random.key(0), (8, 12), config)
    x = jax.random.normal(jax.random.key(1), (2, 8, 12, 1))
    value = random_conv.apply(params, x, config)
    chex.assert_shape(value, (2, random_conv.num_features((8, 12), config)))
    maps = plain_apply(params, x)
    if readout == "time_mean":
        np.testing.assert_allclose(
            value, maps.mean(2).reshape(2, -1), rtol=1e-5, atol=1e-6
        )
    if readout == "dense":
        expected = maps.reshape(2, -1) @ params.head_kernel + params.head_bias
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def test_variances():
    config = RandomNetworkConfig(width=256, weight_variance=2.0, bias_std=0.1)
    params = random_conv.init(jax.random.key(0), (32, 32), config)
    for kernel, fan_in in zip(params.kernels, (9, 9 * 256, 9 * 256), strict=True):
        assert float(kernel.std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
    assert float(jnp.stack(params.biases).std()) == pytest.approx(0.1, rel=0.1)


def test_parameters_carry_no_gradient():
    config = RandomNetworkConfig(depth=1, width=3)
    params = random_conv.init(jax.random.key(0), (4, 4), config)
    x = jnp.ones((1, 4, 4, 1))
    grads = jax.grad(lambda p: random_conv.apply(p, x, config).sum())(params)
    assert all(not g.any() for g in jax.tree.leaves(grads))


def test_a_spectrogram_that_is_too_small_is_named():
    with pytest.raises(UserError, match="4 mel bins x 64 frames is too small"):
        random_conv.num_features((4, 64), RandomNetworkConfig(depth=3))
    config = RandomNetworkConfig(depth=1, width=2, readout="time_mean")
    params = random_conv.init(jax.random.key(0), (8, 8), config)
    with pytest.raises(UserError, match="8 mel bins x 1 frames is too small"):
        random_conv.apply(params, jnp.ones((2, 8, 1, 1)), config)
