import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.networks import pooling


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (1, 5, 7, 2)])
def test_average_pool_and_its_gradient(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    f2, t2 = shape[1] // 2, shape[2] // 2

    def plain(x):
        x = x[:, : 2 * f2, : 2 * t2].reshape(shape[0], f2, 2, t2, 2, shape[3])
        return x.mean((2, 4))

    np.testing.assert_allclose(pooling.average_pool(x), plain(x), atol=1e-6)
    ct = jax.random.normal(jax.random.key(1), (shape[0], f2, t2, shape[3]))
    mine = jax.vjp(pooling.average_pool, x)[1](ct)[0]
    np.testing.assert_allclose(mine, jax.vjp(plain, x)[1](ct)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "pooled"),
    [((1, 1), (1, 1)), ((1, 6), (1, 3)), ((5, 1), (2, 1)), ((4, 4), (2, 2))],
)
def test_short_axes_are_not_pooled(shape, pooled):
    x = jnp.ones((2, *shape, 3))
    out = pooling.pool_any(x)
    assert out.shape == (2, *pooled, 3)
    np.testing.assert_allclose(out, 1.0)


@pytest.mark.parametrize("shape", [(2, 8, 6, 3), (1, 5, 7, 2), (1, 1, 1, 1)])
def test_max_pooling_returns_the_window_maximum(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    want = jax.lax.reduce_window(
        x, -np.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding
    )
    np.testing.assert_array_equal(pooling.max_pool(x), want)


@pytest.mark.parametrize("shape", [(2, 8, 6, 3), (1, 5, 7, 2)])
def test_equal_maxima_share_the_gradient(shape):
    # Few values, so that many inputs of a window are equal, zeros above all.
    x = jax.random.randint(jax.random.key(0), shape, -2, 2).clip(0).astype(float)

    def stacked(x):
        around = ((0, 0), (1, 2), (1, 2), (0, 0))
        x = jnp.pad(x, around, constant_values=-1e9)
        f, t = ((side + 1) // 2 for side in shape[1:3])
        at = lambda u, v: x[:, u : u + 2 * f : 2, v : v + 2 * t : 2]
        return jnp.stack([at(u, v) for u in range(3) for v in range(3)]).max(0)

    @jax.jit
    def both(x):
        out, pull = jax.vjp(pooling.max_pool, x)
        ct = jax.random.normal(jax.random.key(1), out.shape)
        return pull(ct)[0], jax.vjp(stacked, x)[1](ct)[0]

    np.testing.assert_allclose(*both(x), atol=1e-6)
