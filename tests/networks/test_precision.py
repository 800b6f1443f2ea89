import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.kernels import random_kernels
from audiodd_jax.networks import random_conv
from audiodd_jax.networks.random_conv import PRECISIONS

pytestmark = pytest.mark.optimized


def network(width, **settings):
    config = RandomNetworkConfig(depth=2, width=width, **settings)
    return config, random_conv.init(jax.random.key(0), (16, 12), config)


def test_operands_are_rounded_to_the_units_mantissa():
    x = jnp.float32(1 + 2.0**-7 + 2.0**-11)
    assert float(PRECISIONS["float32"].rounded(x)) == float(x)
    assert float(PRECISIONS["tf32"].rounded(x)) == 1 + 2.0**-7
    assert float(PRECISIONS["bfloat16"].rounded(x + 2.0**-9)) == 1 + 2.0**-7
    assert PRECISIONS["bfloat16"].operand(x).dtype == jnp.bfloat16
    assert PRECISIONS["tf32"].operand(x).dtype == jnp.float32


@pytest.mark.parametrize(
    ("name", "error", "width", "readout"),
    [
        ("tf32", 2e-3, 64, "dense"),
        ("bfloat16", 2e-2, 64, "flatten"),
        ("bfloat16", 2e-2, 8, "time_mean"),
    ],
)
def test_features_and_gradients_stay_within_their_error_bounds(
    name, error, width, readout
):
    x = jax.random.normal(jax.random.key(1), (5, 16, 12, 1))
    found = {}
    for kind in ("float32", name):
        config, params = network(width, readout=readout, output_dim=32, precision=kind)

        @jax.jit
        def both(x, params=params, config=config):
            phi, pull_back = jax.vjp(lambda x: random_conv.apply(params, x, config), x)
            return phi, pull_back(jnp.ones_like(phi))[0]

        found[kind] = both(x)
    phi, grad = found[name]
    assert phi.dtype == PRECISIONS[name].dtype(jnp.float32)
    assert grad.dtype == jnp.float32
    exact, exact_grad = found["float32"]
    distance = lambda a, b: float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))
    assert 0 < distance(phi.astype(jnp.float32), exact) < error
    # Gradients differ where rounding opens or closes a ReLU.
    assert 0 < distance(grad, exact_grad) < 0.2


@pytest.mark.parametrize("name", ["float32", "tf32", "bfloat16"])
def test_accelerators_get_the_same_network(name, monkeypatch):
    config, params = network(64, precision=name)
    x = jax.random.normal(jax.random.key(1), (3, 16, 12, 1))

    def both():
        def values(x):
            phi, pull_back = jax.vjp(lambda x: random_conv.apply(params, x, config), x)
            return phi.astype(jnp.float32), pull_back(jnp.ones_like(phi))[0]

        return jax.jit(values)(x)

    ours = both()
    take = lambda *operands, cpu, default: default(*operands)
    monkeypatch.setattr(jax.lax, "platform_dependent", take)
    # CPUs multiply in float32 whatever the request, except for bfloat16 operands.
    error = {"float32": 1e-5, "tf32": 2e-3, "bfloat16": 2e-2}[name]
    distance = lambda a, b: float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))
    phi, grad = both()
    assert distance(phi, ours[0]) < error
    assert grad.dtype == jnp.float32
    assert distance(grad, ours[1]) < max(20 * error, 1e-3)


def test_kernels_of_bfloat16_features_are_summed_in_float32():
    phi = jnp.full((1, 4096), 1 + 2.0**-7, jnp.bfloat16)
    total = random_kernels.accumulate(phi, phi)
    assert total.dtype == jnp.float32
    assert float(total[0, 0]) == pytest.approx(4096 * (1 + 2.0**-7) ** 2, rel=1e-6)


def test_float64_stays_float64(x64):
    config, params = network(4)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 12, 1)))
    assert random_conv.apply(params, x, config).dtype == jnp.float64
