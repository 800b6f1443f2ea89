"""The mesh: how work is divided; ``test_several_devices`` runs it on several."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from audiodd_jax.errors import UserError
from audiodd_jax.runtime import devices
from audiodd_jax.runtime.devices import Grid


@given(count=st.integers(1, 64), networks=st.integers(1, 32))
def test_every_device_is_used_and_most_have_work(count, networks):
    grid = devices.choose_grid(count, networks)
    assert grid.networks * grid.batch == count
    slots = grid.networks * -(-networks // grid.networks)
    assert slots <= 2 * networks


@pytest.mark.parametrize(
    ("count", "networks", "grid"),
    [
        (1, 8, (1, 1)),
        (8, 8, (8, 1)),
        (8, 5, (8, 1)),
        (8, 3, (4, 2)),
        (8, 1, (1, 8)),
        (4, 8, (4, 1)),
        (6, 8, (6, 1)),
    ],
)
def test_devices_share_networks_first(count, networks, grid):
    assert devices.choose_grid(count, networks) == Grid(*grid)


def test_one_device_has_no_collectives():
    share = Grid().share("networks", 3)
    np.testing.assert_array_equal(share.numbers, [0, 1, 2])
    assert share.is_own is None
    x = jnp.ones(3)
    assert Grid().gather(x, "batch", 3) is x
    one = devices.make_mesh(grid=Grid(), devices=jax.devices()[:1])
    rows = devices.shard_rows(lambda x, y: x + y, one)
    each = lambda rows, shared: lax.map(lambda row: row + shared, rows)
    slots = devices.shard_rows(each, one, devices.NETWORKS)
    for mapped in (rows, slots):
        text = jax.jit(mapped).lower(x, jnp.ones(())).compile().as_text()
        assert "all-" not in text


def test_a_grid_that_does_not_fit_the_devices_is_refused():
    with pytest.raises(UserError, match="a grid of 2 x 3 does not fit 1"):
        devices.make_mesh(grid=Grid(2, 3))
    with pytest.raises(UserError, match="--num_devices must be 1 to"):
        devices.limit(len(jax.devices()) + 1)


@dataclasses.dataclass(frozen=True)
class Chip:
    id: int
    platform: str = "tpu"


def test_a_mesh_follows_the_torus_of_a_tpu(monkeypatch):
    # Without the checks of types: these are no devices of JAX.
    make_mesh = getattr(devices.make_mesh, "__wrapped__", devices.make_mesh)
    chips = [Chip(i) for i in range(4)]
    asked = []

    def ring(shape, devices):
        asked.append(shape)
        return np.array([devices[i] for i in (0, 1, 3, 2)]).reshape(shape)

    monkeypatch.setattr(devices.mesh_utils, "create_device_mesh", ring)
    placed = make_mesh(devices=chips, grid=Grid(2, 2)).devices
    assert [[chip.id for chip in row] for row in placed] == [[0, 1], [3, 2]]
    assert asked == [(2, 2)]

    def unknown(shape, devices):
        raise NotImplementedError("a shape that the torus does not have")

    monkeypatch.setattr(devices.mesh_utils, "create_device_mesh", unknown)
    placed = make_mesh(devices=chips, grid=Grid(4, 1)).devices
    assert [chip.id for chip in placed[:, 0]] == [0, 1, 2, 3]
