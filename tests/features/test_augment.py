import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.config import AugmentConfig
from audiodd_jax.features import augment, normalization
from audiodd_jax.features.normalization import Normalization

STATS = Normalization(np.full(6, -40, np.float32), np.full(6, 10, np.float32))


def images(b=32):
    return jax.random.normal(jax.random.key(0), (b, 6, 10, 1))


def apply(config, x, seed=1):
    return augment.augment(jax.random.key(seed), x, config, STATS)


def test_off_is_the_identity():
    x = images()
    np.testing.assert_array_equal(apply(AugmentConfig(), x), x)


@pytest.mark.parametrize(
    "name", ["time_shift", "gain_db", "noise_db", "time_mask", "frequency_mask"]
)
def test_each_change_is_keyed_and_drawn_for_each_clip(name):
    config = AugmentConfig(**{name: 0.5})
    x = jnp.broadcast_to(images(1), (32, 6, 10, 1))
    value = apply(config, x)
    np.testing.assert_array_equal(value, apply(config, x))
    assert np.abs(value - apply(config, x, seed=2)).max() > 0
    assert len(np.unique(np.asarray(value).reshape(32, -1), axis=0)) > 3
    assert np.isfinite(value).all()


def test_time_shift_moves_frames_and_brings_silence_in():
    x = images()
    value = np.asarray(augment.time_shift(jax.random.key(1), x, 0.3, STATS))
    shifts = set()
    for before, after in zip(np.asarray(x)[..., 0], value[..., 0], strict=True):
        matches = []
        for shift in range(-3, 4):
            expected = np.full_like(before, before.min())
            source = before[:, max(0, -shift) : 10 - max(0, shift)]
            expected[:, max(0, shift) : 10 + min(0, shift)] = source
            if np.array_equal(expected, after):
                matches.append(shift)
        assert len(matches) == 1
        shifts.update(matches)
    assert shifts == set(range(-3, 4))


@pytest.mark.parametrize(("axis", "size"), [(1, 6), (2, 10)])
def test_a_mask_is_a_single_band_no_wider_than_its_setting(axis, size):
    x = images(200)
    value = np.asarray(augment.mask(jax.random.key(1), x, 0.5, STATS, axis, len(x)))[
        ..., 0
    ]
    silent = value == np.asarray(x).min(axis=(1, 2, 3))[:, None, None]
    bands = silent.all(axis=3 - axis)  # over the other axis
    widths = bands.sum(axis=1)
    assert set(widths) == set(range(size // 2 + 1))
    # One band: at most one step up along the axis.
    edges = np.diff(np.pad(bands, ((0, 0), (1, 1))).astype(int), axis=1)
    assert ((edges == 1).sum(axis=1) <= 1).all()
    # Both ends are reached.
    assert bands[:, 0].any()
    assert bands[:, -1].any()


def test_gain_is_in_decibels():
    x = images()
    change = np.asarray(apply(AugmentConfig(gain_db=5.0), x) - x)
    assert 0.4 < np.abs(change).max() <= 0.5 + 1e-6  # 5 dB over a deviation of 10 dB
    np.testing.assert_allclose(np.ptp(change, axis=(1, 2, 3)), 0, atol=1e-6)


def test_background_adds_power_at_the_drawn_ratio():
    decibel = jnp.full((64, 6, 10), -60.0).at[:, 2, 5].set(0.0)
    x = normalization.apply(decibel, STATS)
    noise = jnp.full((3, 6, 10), -17.0, jnp.float16)  # its own level does not matter
    config = AugmentConfig(background=0.5, background_snr_db=5.0)
    mix = lambda seed: normalization.invert(
        augment.augment(jax.random.key(seed), x, config, STATS, noise), STATS
    )
    value = np.asarray(mix(1))
    np.testing.assert_array_equal(value, mix(1))
    changed = np.abs(value - decibel).max((1, 2)) > 1e-3
    assert 0.3 < changed.mean() < 0.7
    # The loudest bin stays at 0 dB. Elsewhere the noise is 5 to 35 dB below it, minus
    # the power that it added to the loudest bin.
    np.testing.assert_allclose(value.max((1, 2)), 0, atol=1e-4)
    floor = value[changed][:, 0, 0]
    assert (floor < -4.9).all()
    assert (floor > -60).all()
    for level in floor:
        ratio = 10 ** (level / 10)  # (n + 1e-6) / (1 + n)
        power = (ratio - 1e-6) / (1 - ratio)
        assert -35.1 < 10 * np.log10(power) < -4.9
    np.testing.assert_array_equal(
        augment.augment(jax.random.key(1), x, AugmentConfig(), STATS, noise), x
    )


@pytest.mark.parametrize("change", ["time_shift", "time_mask"])
def test_silence_is_a_level_in_decibels_with_statistics_per_bin(change):
    stats = Normalization(
        np.linspace(-50, -20, 6, dtype=np.float32),
        np.linspace(5, 15, 6, dtype=np.float32),
    )
    decibel = jnp.maximum(jax.random.normal(jax.random.key(0), (8, 6, 10)) * 30, -60)
    x = normalization.apply(decibel, stats)
    config = AugmentConfig(**{change: 0.5})
    found = augment.augment(jax.random.key(1), x, config, stats)
    back = np.asarray(normalization.invert(found, stats))
    changed = ~np.isclose(back, decibel, atol=1e-3)
    assert changed.any()
    if change == "time_mask":
        floor = np.asarray(decibel.min((1, 2)))[:, None, None]
        np.testing.assert_allclose(
            back[changed], np.broadcast_to(floor, back.shape)[changed], atol=1e-3
        )
    assert back.min() > -60.001
