import jax
import numpy as np
import pytest

from audiodd_jax.features import batches

KEY = jax.random.key(3)


@pytest.mark.parametrize(("clips", "size", "b"), [(10, 4, 3), (7, 10, 7), (12, 4, 4)])
def test_an_epoch_holds_a_clip_once_in_equal_batches(clips, size, b):
    count = -(-clips // size)
    rows = np.asarray(batches.epoch_rows(KEY, clips, size, 0, 3 * count))
    assert rows.shape == (3 * count, b)
    for epoch in rows.reshape(3, -1):
        assert len(set(epoch.tolist())) == count * b
    assert (rows[:count] != rows[count : 2 * count]).any()


def test_every_clip_is_drawn_in_some_epoch():
    rows = np.asarray(batches.epoch_rows(KEY, 10, 4, 0, 30))
    assert set(rows.ravel().tolist()) == set(range(10))


@pytest.mark.parametrize("first", [0, 1, 2, 5, 7])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_any_step_draws_the_same_wherever_it_starts(first, length):
    whole = np.asarray(batches.epoch_rows(KEY, 10, 4, 0, 20))
    part = jax.jit(batches.epoch_rows, static_argnums=(1, 2, 4))(
        KEY, 10, 4, first, length
    )
    np.testing.assert_array_equal(part, whole[first : first + length])
