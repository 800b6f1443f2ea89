import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.kernels import random_kernels
from audiodd_jax.kernels.random_kernels import Plan


def kernel(config, x, n=4):
    return jax.jit(random_kernels.make(config, n))(jax.random.key(0), x, x).ss


def inputs(b, seed=1):
    return jax.random.normal(jax.random.key(seed), (b, 8, 8, 1))


@pytest.mark.parametrize("chunk", [1, 3, 7, 8, 100])
def test_kernels_do_not_depend_on_chunks(chunk):
    config, x = RandomNetworkConfig(depth=2, width=4), (inputs(7), inputs(5, seed=2))
    whole, parts = (
        random_kernels.make(config, 4, plan=plan)(jax.random.key(0), *x)
        for plan in (Plan(), Plan(chunk, chunk))
    )
    assert [k.shape for k in whole] == [(7, 5), (5, 5)]
    for a, b in zip(parts, whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_features_are_those_of_the_kernels():
    config, x, key = RandomNetworkConfig(depth=2, width=4), inputs(7), jax.random.key(0)
    drawn = random_kernels.sample_networks(key, 4, (8, 8), config)
    phi = random_kernels.features(drawn, x, config)
    assert phi.shape == (4, 7, 16)
    expected = 2 / (4 * 16) * np.einsum("nad,nbd->ab", phi, phi) + 0.1**2
    np.testing.assert_allclose(kernel(config, x), expected, rtol=1e-5)


def test_the_first_networks_do_not_depend_on_their_number():
    config = RandomNetworkConfig(depth=2, width=4)
    few, many = (
        random_kernels.sample_networks(jax.random.key(0), n, (8, 8), config)
        for n in (2, 5)
    )
    for a, b in zip(jax.tree.leaves(few), jax.tree.leaves(many), strict=True):
        np.testing.assert_array_equal(a, b[:2])


@pytest.mark.parametrize("readout", ["flatten", "time_mean", "dense"])
def test_kernel_is_symmetric_and_positive_semi_definite(readout):
    config = RandomNetworkConfig(depth=2, width=4, readout=readout, output_dim=5)
    k = np.asarray(kernel(config, inputs(10)), np.float64)
    np.testing.assert_allclose(k, k.T, rtol=1e-5)
    assert np.linalg.eigvalsh(k).min() > -1e-5 * np.trace(k)


def test_flatten_by_hand():
    config = RandomNetworkConfig(depth=1, width=2)
    phi_a = jnp.array([[[1.0, 2.0]], [[0.0, 1.0]]])  # two networks, one input
    phi_b = jnp.array([[[3.0, 1.0]], [[2.0, 2.0]]])
    # 2/(2 * 2) * ((3 + 2) + (0 + 2)) + 0.1^2
    total = sum(map(random_kernels.accumulate, phi_a, phi_b))
    k = random_kernels.scale_kernel(total, 2, 2, config)
    assert float(k[0, 0]) == pytest.approx(3.5 + 0.01)


def test_dense_readout_has_the_analytic_kernel_in_expectation():
    shared = {"depth": 2, "width": 32}
    analytic = RandomNetworkConfig(**shared)
    dense = RandomNetworkConfig(**shared, readout="dense", output_dim=4096)
    x = inputs(4)
    estimates = {}
    for name, config in (("analytic", analytic), ("dense", dense)):
        estimates[name] = np.asarray(kernel(config, x, 48))
    # The trunks are the same draws; only the head's sampling error remains.
    np.testing.assert_allclose(estimates["dense"], estimates["analytic"], rtol=0.03)


def test_monte_carlo_error_falls_with_networks():
    config = RandomNetworkConfig(depth=2, width=8)
    x = inputs(4)

    def estimates(n, seeds):
        kernels = jax.jit(random_kernels.make(config, n))
        return np.array([kernels(jax.random.key(s), x, x).ss for s in seeds])

    (truth,) = estimates(2048, [99])
    error = lambda n: np.abs(estimates(n, range(12)) - truth).mean()
    # 1/sqrt(n): from 4 to 64 networks, a quarter.
    assert error(64) / error(4) == pytest.approx(0.25, rel=0.5)
