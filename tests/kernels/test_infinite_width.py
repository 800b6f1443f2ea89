"""Exact kernels against explicit formulas and random networks."""

import importlib.util
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.errors import UserError
from audiodd_jax.kernels import infinite_width, random_kernels

KINDS = ("nngp", "ntk")


def inputs(b, shape=(8, 8), seed=1, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), (b, *shape, 1), dtype)


def exact(config, kind="nngp"):
    return jax.jit(infinite_width.make_kernel(config, kind))


# The formulas in NumPy, with covariances of all pairs of positions.


def pad(k):
    return np.pad(k, ((1, 1),) * 4)


def convolved(k, weight_variance):
    """Mean over 3x3 windows that move together, with zeros outside."""
    f, t = k.shape[:2]
    k = pad(k)
    windows = [
        k[u : u + f, v : v + t, u : u + f, v : v + t]
        for u in range(3)
        for v in range(3)
    ]
    return weight_variance * sum(windows) / 9


def pooled(k, sides):
    for axis, side in zip((0, 1, 2, 3), sides * 2, strict=True):
        size = k.shape[axis] // side * side
        k = np.moveaxis(np.take(k, np.arange(size), axis), axis, 0)
        k = k.reshape(size // side, side, *k.shape[1:]).mean(1)
        k = np.moveaxis(k, 0, axis)
    return k


def rectified(k, var1, var2):
    """Cho and Saul's arc-cosine kernels of degree 1 and 0."""
    scale = np.sqrt(var1[:, :, None, None] * var2)
    angle = np.arccos(np.clip(k / scale, -1, 1))
    flat = (np.pi - angle) / (2 * np.pi)
    return scale * (np.sin(angle) / (2 * np.pi) + flat * np.cos(angle)), flat


def by_hand(x1, x2, config, kind):
    """Computes the kernel of a pair of ``[f, t]`` images."""
    w, b2 = config.weight_variance, config.bias_std**2
    own = [np.multiply.outer(x, x) for x in (x1, x2)]
    k, theta = np.multiply.outer(x1, x2), 0.0
    for _ in range(config.depth):
        k = convolved(k, w) + b2
        theta = k + (convolved(theta, w) if np.ndim(theta) else 0)
        own = [convolved(o, w) + b2 for o in own]
        spread = [np.einsum("ftft->ft", o) for o in own]
        k, slope = rectified(k, *spread)
        theta = theta * slope
        own = [rectified(o, v, v)[0] for o, v in zip(own, spread, strict=True)]
        k, theta, *own = (pooled(o, (2, 2)) for o in (k, theta, *own))
    if config.readout == "time_mean":
        k, theta = (pooled(o, (1, k.shape[1])) for o in (k, theta))
    k, theta = (np.einsum("ftft->ft", o).mean() for o in (k, theta))
    nngp = w * k + b2
    return nngp if kind == "nngp" else nngp + w * theta


@pytest.mark.parametrize("readout", ["flatten", "time_mean", "dense"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel_matches_its_formulas(kind, readout):
    config = RandomNetworkConfig(
        depth=2, readout=readout, weight_variance=1.7, bias_std=0.3
    )
    x1, x2 = inputs(2, (6, 9)), inputs(2, (6, 9), seed=2)  # odd: a frame is dropped
    found = exact(config, kind)(x1, x2)
    wide = lambda x: np.asarray(x[..., 0], np.float64)
    expected = [[by_hand(a, b, config, kind) for b in wide(x2)] for a in wide(x1)]
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_constant_images_by_hand():
    """One layer over 2x2 pixels: each 3x3 window covers all four."""
    config = RandomNetworkConfig(depth=1, bias_std=0.0)
    x1, x2 = jnp.full((1, 2, 2, 1), 3.0), jnp.full((1, 2, 2, 1), -2.0)
    kernel = exact(config)
    # Variances 2 * 4/9 * 9 = 8 and 2 * 4/9 * 4 = 32/9. Windows of neighbours share two
    # pixels, those across the diagonal one: correlations 1, 1/2, 1/4, of 4, 8 and 4 of
    # 16 pairs, or those negated.
    arc = lambda r: ((1 - r**2) ** 0.5 + (np.pi - np.arccos(r)) * r) / np.pi
    mean = lambda sign: (arc(sign) + 2 * arc(sign / 2) + arc(sign / 4)) / 4
    assert float(kernel(x1, x1)[0, 0]) == pytest.approx(8 * mean(1), rel=1e-5)
    expected = (8 * 32 / 9) ** 0.5 * mean(-1)
    assert float(kernel(x1, x2)[0, 0]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("readout", ["flatten", "time_mean"])
def test_it_is_symmetric_and_positive_semi_definite(kind, readout):
    kernel = exact(RandomNetworkConfig(depth=2, readout=readout), kind)
    x = inputs(9)
    k = np.asarray(kernel(x, x), np.float64)
    np.testing.assert_allclose(k, k.T, rtol=1e-5)
    assert np.linalg.eigvalsh(k).min() > -1e-5 * np.trace(k)


def deviations(config, networks):
    """Relative errors of the kernels of random networks."""
    x, kernels = inputs(4), random_kernels.make(config, 1)

    @jax.jit
    def one_by_one(keys):
        return jax.lax.map(lambda key: kernels(key, x, x).ss, keys)

    found = one_by_one(jax.random.split(jax.random.key(3), networks))
    return np.asarray(found / exact(config)(x, x) - 1)


def size(errors):
    return np.mean(errors**2) ** 0.5


def slope(sizes, errors):
    return np.polyfit(np.log(sizes), np.log(errors), 1)[0]


@pytest.mark.parametrize("readout", ["flatten", "time_mean", "dense"])
def test_random_networks_converge_as_one_over_the_root_of_their_number(readout):
    config = RandomNetworkConfig(depth=2, width=32, readout=readout, output_dim=64)
    each = deviations(config, 512)
    # The kernel of n networks is the mean of their kernels.
    numbers = (1, 4, 16)
    errors = [size(each.reshape(-1, n, 4, 4).mean(1)) for n in numbers]
    assert slope(numbers, errors) == pytest.approx(-0.5, abs=0.1)
    # The remaining error includes the bias of a finite width.
    assert size(each.mean(0)) < 0.04


def test_random_networks_converge_as_one_over_the_root_of_their_width():
    widths = (16, 64, 128)
    config = lambda width: RandomNetworkConfig(depth=2, width=width)
    errors = [size(deviations(config(width), 64)) for width in widths]
    assert slope(widths, errors) == pytest.approx(-0.5, abs=0.1)


def test_chunks_of_pairs_give_the_whole_matrix():
    kernel = infinite_width.make_kernel(RandomNetworkConfig(depth=2), "ntk")
    x1, x2 = inputs(7), inputs(5, seed=2)
    weights = jax.random.normal(jax.random.key(3), (7, 5))
    part = lambda x1, x2: infinite_width.rows(kernel, x1, x2, 6)
    total = lambda f: jax.jit(
        jax.value_and_grad(lambda *x: jnp.sum(weights * f(*x)), argnums=(0, 1))
    )
    whole = jax.jit(kernel)(x1, x2)
    np.testing.assert_allclose(jax.jit(part)(x1, x2), whole, rtol=2e-5)
    (_, found), (_, expected) = total(part)(x1, x2), total(kernel)(x1, x2)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_match_finite_differences(kind, x64):
    kernel = infinite_width.make_kernel(RandomNetworkConfig(depth=2), kind)
    x = inputs(3, dtype=jnp.float64)
    weights = jax.random.normal(jax.random.key(3), (3, 3), jnp.float64)
    x_b = inputs(3, seed=5, dtype=jnp.float64)

    @jax.jit
    def loss(x):
        # Also for a Gram matrix, on whose diagonal the slope of the angle is infinite.
        k = infinite_width.rows(kernel, x, x, 4) if kind == "nngp" else 0.0
        return jnp.sum(weights * (infinite_width.rows(kernel, x_b, x, 4) + k))

    grads = jax.jit(jax.grad(loss))(x)
    assert grads.dtype == jnp.float64
    for seed in range(3):
        way = inputs(3, seed=10 + seed, dtype=jnp.float64)
        step = 1e-5
        numeric = (loss(x + step * way) - loss(x - step * way)) / (2 * step)
        assert float(jnp.vdot(grads, way)) == pytest.approx(float(numeric), rel=1e-5)


def test_gradients_of_a_gram_matrix_are_finite_in_float32():
    x = inputs(4)
    x = x.at[3].set(x[2]).at[0].set(0.0)  # equal ones, and silence
    for kind in KINDS:
        kernel = infinite_width.make_kernel(RandomNetworkConfig(depth=2), kind)
        grads = jax.jit(jax.grad(lambda x, k=kernel: k(x, x).sum()))(x)
        assert np.isfinite(grads).all()


def test_pairs_at_once_fit_the_memory():
    at_once = lambda shape, memory: infinite_width.pairs_at_once(
        shape, is_differentiated=True, memory=memory
    )
    few, more = (at_once((32, 32), memory << 30) for memory in (1, 3))
    assert 1 <= few < more < at_once((16, 16), 3 << 30)
    # Memory of this number of pairs, from the compiler.
    pairs = at_once((16, 16), 64 << 20)
    kernel = infinite_width.make_kernel(RandomNetworkConfig(), "ntk")
    a, b = infinite_width.tile_shape(pairs, 100, 100)
    x1, x2 = inputs(a, (16, 16)), inputs(b, (16, 16))
    pull = lambda x1, x2: jax.vjp(lambda x2: kernel(x1, x2), x2)[1](jnp.ones((a, b)))
    compiled = jax.jit(pull).lower(x1, x2).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 64 << 20
    with pytest.raises(UserError, match="one pair of spectrograms of 64 x 128"):
        at_once((64, 128), 1 << 30)


@pytest.mark.parametrize("pairs", [1, 2, 5, 12, 64])
@pytest.mark.parametrize("shape", [(1, 1), (1, 20), (20, 1), (7, 9)])
def test_tiles_are_of_few_enough_pairs(pairs, shape):
    a, b = infinite_width.tile_shape(pairs, *shape)
    assert 1 <= a * b <= pairs
    assert a <= shape[0]
    assert b <= shape[1]
    if pairs >= shape[0] * shape[1]:
        assert (a, b) == shape


def test_impossible_settings_are_one_sentence(monkeypatch):
    config = RandomNetworkConfig(depth=2)
    with pytest.raises(UserError, match="unknown kernel 'nngk'; choose from nngp"):
        infinite_width.make_kernel(config, "nngk")
    deep = infinite_width.make_kernel(RandomNetworkConfig(depth=4), "nngp")
    with pytest.raises(UserError, match="too small for 4 poolings"):
        deep(inputs(1), inputs(1))
    infinite_width._stax.cache_clear()
    for name in [name for name in sys.modules if name.startswith("neural_tangents")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="need neural-tangents: pip install frozendict"):
        infinite_width.make_kernel(config, "nngp")
    assert "neural_tangents" not in sys.modules


def test_only_the_layers_are_imported():
    infinite_width.make_kernel(RandomNetworkConfig(), "nngp")
    assert "neural_tangents.stax" in sys.modules
    assert "tensorflow" not in sys.modules
