import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.kernels import random_features


def networks(config, n=4, shape=(8, 8), seed=0):
    return random_features.sample_networks(jax.random.key(seed), n, shape, config)


def inputs(b, seed=1):
    return jax.random.normal(jax.random.key(seed), (b, 8, 8, 1))


@pytest.mark.parametrize("chunk", [1, 3, 7, 8, 100])
def test_features_do_not_depend_on_chunks(chunk):
    config = RandomNetworkConfig(depth=2, width=4)
    drawn, x = networks(config), inputs(7)
    whole = random_features.features(drawn, x, config)
    parts = random_features.features(drawn, x, config, chunk)
    assert whole.shape == (4, 7, 16)
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


def test_the_first_networks_do_not_depend_on_their_number():
    config = RandomNetworkConfig(depth=2, width=4)
    few, many = networks(config, 2), networks(config, 5)
    for a, b in zip(jax.tree.leaves(few), jax.tree.leaves(many), strict=True):
        np.testing.assert_array_equal(a, b[:2])


@pytest.mark.parametrize("readout", ["flatten", "time_mean", "dense"])
def test_kernel_is_symmetric_and_positive_semi_definite(readout):
    config = RandomNetworkConfig(depth=2, width=4, readout=readout, output_dim=5)
    phi = random_features.features(networks(config), inputs(10), config)
    k = np.asarray(random_features.kernel(phi, phi, config), np.float64)
    np.testing.assert_allclose(k, k.T, rtol=1e-5)
    assert np.linalg.eigvalsh(k).min() > -1e-5 * np.trace(k)


def test_flatten_by_hand():
    config = RandomNetworkConfig(depth=1, width=2)
    phi_a = jnp.array([[[1.0, 2.0]], [[0.0, 1.0]]])  # two networks, one input
    phi_b = jnp.array([[[3.0, 1.0]], [[2.0, 2.0]]])
    # 2/(2 * 2) * ((3 + 2) + (0 + 2)) + 0.1^2
    k = random_features.kernel(phi_a, phi_b, config)
    assert float(k[0, 0]) == pytest.approx(3.5 + 0.01)


def test_dense_readout_has_the_analytic_kernel_in_expectation():
    shared = {"depth": 2, "width": 32}
    analytic = RandomNetworkConfig(**shared)
    dense = RandomNetworkConfig(**shared, readout="dense", output_dim=4096)
    x = inputs(4)
    estimates = {}
    for name, config in (("analytic", analytic), ("dense", dense)):
        phi = random_features.features(networks(config, 48), x, config)
        estimates[name] = np.asarray(random_features.kernel(phi, phi, config))
    # The trunks are the same draws; only the head's sampling error remains.
    np.testing.assert_allclose(estimates["dense"], estimates["analytic"], rtol=0.03)


def test_monte_carlo_error_falls_with_networks():
    config = RandomNetworkConfig(depth=2, width=8)
    x = inputs(4)

    def estimate(n, seed):
        phi = random_features.features(networks(config, n, seed=seed), x, config)
        return np.asarray(random_features.kernel(phi, phi, config))

    truth = estimate(2048, 99)
    error = lambda n: np.mean(
        [np.abs(estimate(n, s) - truth).mean() for s in range(12)]
    )
    # 1/sqrt(n): from 4 to 64 networks, a quarter.
    assert error(64) / error(4) == pytest.approx(0.25, rel=0.5)
