import jax
import numpy as np
import pytest

from audiodd_jax.features import batches

KEY = jax.random.key(3)


@pytest.mark.parametrize(("clips", "size", "b"), [(10, 4, 4), (7, 10, 7), (12, 4, 4)])
def test_every_epoch_has_every_clip_once(clips, size, b):
    steps = 3 * clips
    rows = np.asarray(batches.epoch_rows(KEY, clips, size, 0, steps))
    assert rows.shape == (steps, b)
    epochs = rows.reshape(-1)[: 3 * clips].reshape(3, clips)
    assert np.all(np.sort(epochs, axis=1) == np.arange(clips))
    assert (epochs[0] != epochs[1]).any()


@pytest.mark.parametrize("first", [0, 1, 2, 5, 7])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_batches_do_not_depend_on_the_first_step(first, length):
    whole = np.asarray(batches.epoch_rows(KEY, 10, 4, 0, 20))
    part = jax.jit(batches.epoch_rows, static_argnums=(1, 2, 4))(
        KEY, 10, 4, first, length
    )
    np.testing.assert_array_equal(part, whole[first : first + length])
