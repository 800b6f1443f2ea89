import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.config import SiameseConfig
from audiodd_jax.features import augment
from audiodd_jax.features.normalization import Normalization

STATS = Normalization(np.zeros(6, np.float32), np.full(6, 10, np.float32))
OFF = SiameseConfig("all", *(0.0,) * 7)
LARGE = {
    "time_shift": 0.4,
    "time_stretch": 0.5,
    "frequency_shift": 0.4,
    "time_mask": 0.6,
    "frequency_mask": 0.6,
    "gain_db": 6.0,
    "noise_db": 4.0,
}


def images(b=3, seed=0, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(b, 6, 10, 1)), dtype)


def only(name, **more):
    return dataclasses.replace(OFF, **{name: LARGE[name]}, **more)


def test_a_setting_for_every_change_and_a_change_for_every_setting():
    names = {field.name for field in dataclasses.fields(SiameseConfig)} - {"mode"}
    assert names == set(augment.CHANGES) == set(LARGE)


@pytest.mark.parametrize("name", LARGE)
def test_each_change_has_its_own_switch(name):
    x, keys = images(), jax.random.split(jax.random.key(0), 8)
    f = jax.jit(jax.vmap(lambda k: augment.siamese(k, x, only(name), STATS)))
    found = f(keys)
    assert np.abs(found - x).max() > 1e-2
    assert np.abs(found[0] - found[1:]).max() > 1e-3  # another key, another change
    np.testing.assert_array_equal(augment.siamese(keys[0], x, OFF, STATS), x)


@pytest.mark.parametrize("mode", ["one", "all"])
def test_both_sides_are_augmented_in_the_same_way(mode):
    """The augmentation of a clip does not depend on the other clips or their number."""
    config = SiameseConfig(mode, **LARGE)
    real, synthetic = images(7, 1), images(2, 2)
    shared = synthetic.at[0].set(real[4])
    for seed in range(10):
        key = jax.random.key(seed)
        one = augment.siamese(key, real, config, STATS)[4]
        other = augment.siamese(key, shared, config, STATS)[0]
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("name", [*LARGE, "all"])
def test_differentiable_by_finite_differences(name, x64):
    config = SiameseConfig("all", **LARGE) if name == "all" else only(name)
    x, direction = images(2, 3, np.float64), images(2, 4, np.float64)
    weights = images(2, 5, np.float64)
    for seed in range(3):
        key = jax.random.key(seed)

        def value(x, key=key):
            return jnp.sum(weights * jnp.sin(augment.siamese(key, x, config, STATS)))

        step = 1e-6
        slope = (value(x + step * direction) - value(x - step * direction)) / 2 / step
        found = jnp.sum(jax.grad(value)(x) * direction)
        assert abs(slope - found) < 1e-7 * (1 + abs(slope))


def test_shifts_by_whole_bins_move_and_let_silence_in():
    x = images()
    moved = augment._resample(x, jnp.arange(10) - 3.0, 2, STATS)
    np.testing.assert_allclose(moved[:, :, 3:], x[:, :, :-3], atol=1e-6)
    lowest = x.min(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(moved[:, :, :3], np.broadcast_to(lowest, (3, 6, 3, 1)))
    half = augment._resample(x, jnp.arange(6) + 0.5, 1, STATS)
    np.testing.assert_allclose(half[:, :5], (x[:, :5] + x[:, 1:]) / 2, atol=1e-6)


def test_gain_is_in_decibel():
    found = augment.siamese(jax.random.key(0), images(), only("gain_db"), STATS)
    change = np.asarray(found - images())
    np.testing.assert_allclose(change, change[0, 0, 0, 0], atol=1e-6)
    assert abs(change[0, 0, 0, 0]) <= 6 / 10


def test_one_change_at_a_time_and_each_in_turn():
    config = SiameseConfig("one", **LARGE)
    x = images(1)
    alone = {
        name: lambda k, n=name: augment.siamese(k, x, only(n), STATS) for name in LARGE
    }
    seen = set()
    change = jax.jit(lambda k: augment.siamese(k, x, config, STATS))
    alone = {name: jax.jit(f) for name, f in alone.items()}
    for seed in range(40):
        key = jax.random.key(seed)
        found = change(key)
        same = {n for n, f in alone.items() if np.allclose(f(key), found, atol=1e-6)}
        assert same
        seen |= same if len(same) == 1 else set()
    assert seen == set(LARGE)


def test_training_changes_each_clip_differently():
    x = jnp.repeat(images(1), 4, axis=0)
    config = SiameseConfig("all", **LARGE)
    found = augment.siamese_each(jax.random.key(0), x, config, STATS)
    assert np.abs(found[0] - found[1:]).max(axis=(1, 2, 3)).min() > 1e-2
