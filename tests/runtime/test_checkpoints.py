import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from audiodd_jax.errors import UserError
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


def test_a_state_is_restored_bit_for_bit(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.latest() is None
    checkpoints.save(3, state(3))
    step, restored = checkpoints.restore_latest(state(0))
    assert step == 3
    assert jax.tree.structure(restored) == jax.tree.structure(state(0))
    np.testing.assert_array_equal(
        jax.random.key_data(restored.key), jax.random.key_data(state(3).key)
    )
    rest = lambda s: jax.tree.leaves(s._replace(key=None))
    for ours, expected in zip(rest(restored), rest(state(3)), strict=True):
        assert ours.dtype == expected.dtype
        np.testing.assert_array_equal(ours, expected)


def test_only_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (0, 10, 20):
        checkpoints.save(step, state(step))
    assert checkpoints.latest() == 20
    assert not checkpoints.path(0).exists()
    assert checkpoints.path(10).is_dir()
    again = Checkpoints(tmp_path / "checkpoints")
    assert again.latest() == 20


@pytest.mark.parametrize("damage", ["truncated", "emptied"])
def test_the_previous_checkpoint_replaces_a_damaged_one(tmp_path, caplog, damage):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (10, 20):
        checkpoints.save(step, state(step))
    newest = tmp_path / "checkpoints" / "20"
    if damage == "emptied":
        shutil.rmtree(newest)
        newest.mkdir()
    else:
        for file in newest.rglob("*"):
            if file.is_file():
                file.write_bytes(b"")
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    step, found = checkpoints.restore_latest(state(0))
    assert step == 10
    np.testing.assert_array_equal(found.params["w"], state(10).params["w"])
    checkpoints.save(20, state(20))  # as the resumed run does
    assert checkpoints.restore_latest(state(0))[0] == 20


def test_a_run_with_only_damaged_checkpoints_is_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.restore_latest(state(0)) is None
    checkpoints.save(10, state(10))
    for file in (tmp_path / "checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(UserError, match=r"all checkpoints in .* are damaged"):
        checkpoints.restore_latest(state(0))


def test_damage_that_the_storage_does_not_detect(tmp_path):
    """Blocks of large arrays have no checksums and would be read with wrong numbers."""
    large = {"x": jax.random.normal(jax.random.key(0), (100, 100))}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (10, 20):
        checkpoints.save(step, large)
    files = (p for p in (tmp_path / "checkpoints" / "20").rglob("*") if p.is_file())
    block = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(block.read_bytes())
    content[len(content) // 2] ^= 1
    block.write_bytes(content)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    step, found = checkpoints.restore_latest(large)
    assert step == 10
    np.testing.assert_array_equal(found["x"], large["x"])
