from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from audiodd_jax.runtime.checkpoints import Checkpoints


class State(NamedTuple):
    key: jax.Array
    step: jax.Array
    params: dict
    opt_state: tuple
    nothing: None = None


def state(step):
    params = {"w": jax.random.normal(jax.random.key(step), (3, 2))}
    return State(
        jax.random.key(step),
        jnp.int32(step),
        params,
        optax.adabelief(1e-3).init(params),
    )


def test_a_state_comes_back_bit_for_bit(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.latest() is None
    checkpoints.save(3, state(3))
    restored = checkpoints.restore(3, state(0))
    assert jax.tree.structure(restored) == jax.tree.structure(state(0))
    np.testing.assert_array_equal(
        jax.random.key_data(restored.key), jax.random.key_data(state(3).key)
    )
    rest = lambda s: jax.tree.leaves(s._replace(key=None))
    for ours, expected in zip(rest(restored), rest(state(3)), strict=True):
        assert ours.dtype == expected.dtype
        np.testing.assert_array_equal(ours, expected)
    checkpoints.close()


def test_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (0, 10, 20):
        checkpoints.save(step, state(step))
    assert checkpoints.latest() == 20
    assert not checkpoints.path(0).exists()
    assert checkpoints.path(10).is_dir()
    checkpoints.close()
    again = Checkpoints(tmp_path / "checkpoints")
    assert again.latest() == 20
    again.close()
