import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.networks import convolution, winograd
from audiodd_jax.networks.pooling import average_pool

pytestmark = pytest.mark.optimized


def arrays(b, f, t, c, w, dtype=jnp.float64):
    keys = jax.random.split(jax.random.key(b * f + t), 3)
    draw = lambda key, *shape: jax.random.normal(key, shape, dtype)
    return draw(keys[0], b, f, t, c), draw(keys[1], 3, 3, c, w), draw(keys[2], w)


@pytest.mark.parametrize(
    ("b", "f", "t", "tiles"), [(1, 4, 4, 2048), (7, 5, 8, 9), (3, 9, 7, 1)]
)
def test_winograd_matches_the_convolution(b, f, t, tiles, x64, monkeypatch):
    monkeypatch.setattr(winograd, "TILES", tiles)
    x, kernel, bias = arrays(b, f, t, 3, 5)

    @jax.jit
    def both(x, kernel, bias):
        plain = convolution.convolve(x, kernel)
        expected = average_pool(jax.nn.relu(plain + bias))
        ours = winograd.convolve(x, kernel), *winograd.pooled(x, kernel, bias, True)
        even = (slice(None), slice(f // 2 * 2), slice(t // 2 * 2))
        return ours, (plain, expected, (plain + bias > 0)[even])

    for ours, expected in zip(*both(x, kernel, bias), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_winograd_has_the_float32_error_of_a_plain_sum(float64):
    with float64(True):
        wide = arrays(4, 16, 16, 128, 128)
        exact = np.asarray(convolution.convolve(*wide[:2]))
    x, kernel = (jnp.asarray(np.asarray(a, np.float32)) for a in wide[:2])
    error = lambda y: np.abs(np.asarray(y, np.float64) - exact).max()
    highest = jax.lax.Precision.HIGHEST
    plain = error(convolution.convolve(x, kernel, precision=highest))
    assert error(winograd.convolve(x, kernel)) < 4 * plain


def test_few_channels_and_small_maps_use_the_library():
    pays = lambda *shape: winograd.pays(*arrays(1, *shape, jnp.float32)[:2])
    assert pays(8, 8, 64, 8)
    assert not pays(8, 8, 63, 8)
    assert not pays(8, 3, 64, 8)
