import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.networks import convolution


def case(seed, b, f, t, channels, width, k, stride):
    keys = jax.random.split(jax.random.key(seed), 3)
    x = jax.random.normal(keys[0], (b, f, t, channels))
    kernel = jax.random.normal(keys[1], (k, k, channels, width))
    out = convolution.convolve(x, kernel, stride)
    return x, kernel, jax.random.normal(keys[2], out.shape)


@pytest.mark.parametrize(
    ("b", "f", "t", "channels", "k", "stride"),
    [
        (3, 8, 10, 3, 3, 1),
        (2, 40, 33, 1, 3, 1),  # one channel; more positions than a chunk holds
        (2, 9, 12, 3, 3, 2),
        (3, 16, 15, 1, 7, 2),
        (2, 7, 11, 2, 3, 3),
        (2, 1, 1, 2, 3, 2),
        (1, 5, 6, 3, 1, 1),
        (2, 5, 6, 20, 5, 1),  # enough channels for YNNPACK
        (3, 1, 2, 4, 3, 1),  # few rows, and columns
        (3, 2, 5, 4, 3, 1),
        (2, 2, 1, 1, 3, 1),
        (2, 3, 4, 2, 5, 1),
    ],
)
def test_written_out_gradients_match_automatic_ones(b, f, t, channels, k, stride):
    x, kernel, ct = case(0, b, f, t, channels, 4, k, stride)
    derived = jax.vjp(lambda x, w: convolution.convolve(x, w, stride), x, kernel)[1]
    mine = jax.vjp(lambda x, w: convolution.conv(x, w, stride), x, kernel)[1]
    for a, b_ in zip(mine(ct), derived(ct), strict=True):
        scale = 1 + np.abs(b_).max()
        np.testing.assert_allclose(a / scale, b_ / scale, atol=1e-5)


def test_convolutions_use_all_cores():
    """XLA:CPU puts convolutions for YNNPACK (one core) into separate computations."""
    x, kernel, ct = case(0, 8, 16, 16, 32, 32, 3, 1)

    def both(x, kernel, ct):
        out, pull = jax.vjp(lambda x: convolution.conv(x, kernel), x)
        return out, pull(ct)

    with jax.default_device(jax.devices("cpu")[0]):
        text = jax.jit(both).lower(x, kernel, ct).compile().as_text()
    holding = [part for part in text.split("\n\n") if " convolution(" in part]
    assert [part.lstrip().split()[0] for part in holding] == ["ENTRY"]
    assert holding[0].count(" convolution(") == 2


@pytest.mark.parametrize("b", [1, 6, 130])
def test_batches_that_do_not_divide_into_chunks_of_patches(b):
    x, kernel, ct = case(0, b, 16, 16, 2, 3, 3, 1)
    found = convolution.kernel_gradient(x, ct, 3)
    want = jax.vjp(lambda w: convolution.convolve(x, w), kernel)[1](ct)[0]
    np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-2)


def test_the_output_has_a_half_of_the_rows_rounded_up():
    x, kernel, _ = case(0, 2, 9, 12, 1, 3, 7, 2)
    assert convolution.convolve(x, kernel, 2).shape == (2, 5, 6, 3)


def test_bfloat16_keeps_its_type_and_sums_in_float32():
    x, kernel, _ = case(0, 4, 12, 12, 3, 4, 3, 1)
    low = lambda a: a.astype(jnp.bfloat16)
    value = lambda x, w: jnp.sum(convolution.conv(x, w).astype(jnp.float32) ** 2)
    grads = jax.grad(value, (0, 1))(low(x), low(kernel))
    assert all(g.dtype == jnp.bfloat16 for g in grads)
    for g, want in zip(grads, jax.grad(value, (0, 1))(x, kernel), strict=True):
        error = np.abs(np.asarray(g, np.float32) - want).max()
        assert error < 0.05 * np.abs(want).max()


def test_second_derivatives(x64):
    x, kernel, _ = case(0, 1, 4, 5, 2, 2, 3, 1)

    def second(conv):
        value = lambda w: jnp.sum(jnp.tanh(conv(x, w)) ** 2)
        along = lambda w: jnp.vdot(jax.grad(value)(w), kernel**2)
        return jax.grad(along)(kernel)

    want = second(convolution.convolve)
    np.testing.assert_allclose(second(convolution.conv), want, rtol=1e-9, atol=1e-9)


def test_it_can_be_mapped_over_networks():
    x, kernel, _ = case(0, 2, 6, 6, 2, 3, 3, 1)
    kernels = jnp.stack([kernel, 2 * kernel])
    grad = jax.grad(lambda w: jnp.sum(convolution.conv(x, w) ** 2))
    stacked = jax.vmap(grad)(kernels)
    for one, row in zip(kernels, stacked, strict=True):
        np.testing.assert_allclose(row, grad(one), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("channels", "k", "stride", "f"),
    [(1, 3, 1, 9), (3, 3, 1, 9), (2, 7, 2, 9), (2, 3, 2, 2), (2, 3, 1, 2)],
)
def test_second_gradients_match_automatic_ones(x64, channels, k, stride, f):
    x, kernel, _ = case(0, 2, f, 12, channels, 4, k, stride)

    def second(conv):
        inner = lambda x, w: jnp.sum(jnp.sin(conv(x, w)))

        def outer(x, w):
            parts = jax.grad(inner, (0, 1))(x, w)
            return sum(jnp.sum(jnp.cos(part)) for part in parts)

        return jax.grad(outer, (0, 1))(x, kernel)

    ours = second(lambda x, w: convolution.conv(x, w, stride))
    derived = second(lambda x, w: convolution.convolve(x, w, stride))
    for a, b in zip(ours, derived, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
