import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.config.packing import Packing
from audiodd_jax.coreset import arrays
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.errors import UserError


def images(s=3, f=4, t=12, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(s, f, t, 1)))


def test_by_hand():
    stored = jnp.array([[[0.0, 1.0, 4.0, 8.0]]])[..., None]
    found = arrays.unpack(stored, 2)[..., 0]
    # Two pieces, each stretched about the centres of its frames.
    np.testing.assert_allclose(found[0, 0], [0, 0.25, 0.75, 1], atol=1e-6)
    np.testing.assert_allclose(found[1, 0], [4, 5, 7, 8], atol=1e-6)
    np.testing.assert_allclose(
        arrays.pack(found[..., None], 2)[0, 0, :, 0],
        [0.125, 0.875, 4.5, 7.5],
        atol=1e-6,
    )


@hypothesis.given(
    factor=st.sampled_from([1, 2, 3, 4, 6, 12, "2x1", "2x2", "4x3"]),
    s=st.integers(1, 3),
    level=st.floats(-5, 5),
)
@hypothesis.settings(deadline=None, max_examples=20)
def test_packing_stores_more_spectrograms_in_the_same_bytes(factor, s, level):
    stored = images(s)
    long, count = arrays.unpack(stored, factor), Packing.parse(factor).per_image
    assert long.shape == (s * count, 4, 12, 1)
    assert arrays.pack(long, factor).shape == stored.shape
    # Values stay within the stored range, and constants stay constant.
    assert long.max() <= stored.max() + 1e-6
    flat = jnp.full_like(stored, level)
    np.testing.assert_allclose(arrays.unpack(flat, factor), level, atol=1e-5)
    long_flat = jnp.full((s * count, 4, 12, 1), level)
    np.testing.assert_allclose(arrays.pack(long_flat, factor), level, atol=1e-5)


def test_pieces_stay_with_their_spectrogram_and_label():
    stored = jnp.arange(3.0)[:, None, None, None] * jnp.ones((3, 4, 12, 1))
    coreset = CoresetArrays(stored, jnp.eye(3), jnp.float32(0.5)).unpack(4)
    np.testing.assert_allclose(coreset.images[:, 0, 0, 0], np.repeat(np.arange(3), 4))
    np.testing.assert_array_equal(coreset.labels.argmax(1), np.repeat(np.arange(3), 4))
    assert coreset.log_scale == 0.5


@pytest.mark.parametrize("factor", [4, "2x2"])
def test_gradient_by_transposition(factor):
    """The stretch is linear: <stretch(x), y> = <x, grad>."""
    stored, other = images(2), images(8, seed=1)
    inner = lambda x: jnp.vdot(arrays.unpack(x, factor), other)
    np.testing.assert_allclose(
        jnp.vdot(jax.grad(inner)(stored), stored), inner(stored), rtol=1e-5
    )


def test_pieces_along_mel_bins_and_time():
    """Four constant quarters are four constant spectrograms, low bins first."""
    stored = np.kron([[1.0, 2.0], [3.0, 4.0]], np.ones((2, 6)))[None, ..., None]
    found = arrays.unpack(jnp.asarray(stored), "2x2")
    np.testing.assert_allclose(found[:, 0, 0, 0], [1, 2, 3, 4])
    np.testing.assert_allclose(found, found[:, :1, :1] * np.ones((1, 4, 12, 1)))
    np.testing.assert_allclose(arrays.pack(found, "2x2"), stored)
    # Along one axis it is the packing of the transposed images.
    turned = lambda x: jnp.swapaxes(x, 1, 2)
    np.testing.assert_allclose(
        arrays.unpack(images(), "2x1"), turned(arrays.unpack(turned(images()), 2))
    )
    np.testing.assert_array_equal(
        arrays.unpack(images(), "1x2"), arrays.unpack(images(), 2)
    )


def test_single_images_are_the_pieces_of_a_packed_one():
    long = images(4)
    single = arrays.pack(long, "2x2:1")
    assert single.shape == (4, 2, 6, 1)
    both = (
        arrays.unpack(single, "2x2:1"),
        arrays.unpack(arrays.pack(long, "2x2"), "2x2"),
    )
    np.testing.assert_array_equal(*both)


@pytest.mark.parametrize(
    ("text", "packing", "setting"),
    [
        (2, (1, 2, False), 2),
        ("2", (1, 2, False), 2),
        ("1x2", (1, 2, False), 2),
        ("2x1", (2, 1, False), "2x1"),
        ("2x2:1", (2, 2, True), "2x2:1"),
        ("1x1:1", (1, 1, False), 1),
    ],
)
def test_a_factor_is_read_and_recorded_in_one_way(text, packing, setting):
    assert Packing.parse(text) == packing
    assert Packing.parse(text).setting == setting


def test_smooth_sounds_survive():
    t = np.arange(64) / 64
    smooth = jnp.asarray(np.sin(2 * np.pi * t + np.arange(4)[:, None]))[
        :, None, :, None
    ]
    there_and_back = arrays.unpack(arrays.pack(smooth, 2), 2)
    assert np.abs(there_and_back - smooth).max() < 0.1


def test_a_factor_that_does_not_divide_is_named():
    with pytest.raises(UserError, match="factor=5 does not divide the 64 frames"):
        arrays.check_factor((32, 64), 5)
    with pytest.raises(UserError, match="factor=3x2 does not divide the 32 mel bins"):
        arrays.check_factor((32, 64), "3x2")
