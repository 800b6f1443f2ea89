import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.features import batches, normalization
from audiodd_jax.features.clips import Clips

ROOT = jax.random.key(3)


@pytest.fixture
def splits():
    """Returns 40 clips of a larger dataset, on the host and on the device."""
    rng = np.random.default_rng(0)
    features = rng.uniform(-80, 0, (100, 4, 6)).astype(np.float16)
    clips = np.sort(rng.permutation(100)[:40])
    labels = jnp.asarray(rng.integers(0, 3, 40), jnp.int32)
    stats = normalization.fit(normalization.moments(features[clips]), "per_bin")
    host = Clips(features, labels, stats, rows=clips)
    return host, Clips(jnp.asarray(features[clips]), labels, stats)


def stream(host, first, last=10, size=8, together=2):
    uniform = batches.uniform(size)
    draw = lambda root, step: uniform(batches.step_keys(root, step)[0], host)
    table = np.asarray(host.labels)
    return batches.stream(host, table, draw, ROOT, first, last, together)


@pytest.mark.parametrize("size", [7, 40, 64])
def test_streamed_batches_are_those_of_the_device_bit_for_bit(splits, size):
    host, device = splits
    step = 0
    for chunk in stream(host, 0, 11, size, 4):
        for features, labels in zip(chunk.features, chunk.labels, strict=True):
            drawn = batches.Streamed(features, labels)
            streamed = jax.jit(batches.standardized)(drawn, host.normalization)
            index_key, _ = batches.step_keys(ROOT, step)
            expected = jax.jit(batches.gather, static_argnums=2)(
                index_key, device, batches.uniform(size)
            )
            np.testing.assert_array_equal(streamed.images, expected.images)
            np.testing.assert_array_equal(streamed.labels, expected.labels)
            step += 1
    assert step == 11


def test_a_stream_resumes_where_it_was_cut(splits):
    host, _ = splits
    whole = list(stream(host, 0))
    rest = list(stream(host, 6))
    assert [len(chunk.labels) for chunk in rest] == [2, 2]
    for a, b in zip(whole[3:], rest, strict=True):
        np.testing.assert_array_equal(a.features, b.features)
        np.testing.assert_array_equal(a.labels, b.labels)


def test_batches_are_drawn_without_replacement_and_whole_where_small(splits):
    _, device = splits
    draw = lambda seed, size: batches.gather(
        jax.random.key(seed), device, batches.uniform(size)
    )
    flat = np.asarray(draw(0, 20).images).reshape(20, -1)
    assert len(np.unique(flat, axis=0)) == 20
    assert np.abs(draw(0, 20).images - draw(1, 20).images).max() > 0
    assert draw(0, 1000).labels.size == 40


def test_balanced_batches_hold_as_many_of_each_class_class_by_class(splits):
    _, device = splits
    counts = np.bincount(device.labels, minlength=3)
    few, many = int(counts.min()), int(counts.max())
    rows = lambda per_class, seed=0: np.asarray(
        jax.jit(batches.balanced(3, per_class))(jax.random.key(seed), device)
    )
    drawn = rows(few).reshape(3, few)
    for label, own in enumerate(drawn):
        assert (np.asarray(device.labels)[own] == label).all()
        assert len(set(own)) == few
    assert (rows(few, 1) != drawn.reshape(-1)).any()
    # A smaller class repeats its clips in turn, so that counts differ by one.
    for label, own in enumerate(rows(many + 1).reshape(3, -1)):
        times = np.unique(own, return_counts=True)[1]
        assert times.size == counts[label]
        assert times.max() - times.min() <= 1


def test_classes_and_their_recordings_are_drawn_evenly():
    """Class 0: clips of recordings 0 (six of them) and 1; class 1: one clip."""
    labels = jnp.array([0, 0, 0, 0, 0, 0, 0, 1])
    recordings = jnp.array([0, 0, 0, 0, 0, 0, 1, 2])
    data = Clips(jnp.zeros((8, 4, 6, 1)), labels, recordings=recordings)
    draw = batches.by_recording(3, 8)
    keys = jax.random.split(ROOT, 4000)
    rows = jax.jit(jax.vmap(lambda key: draw(key, data)))(keys)
    share = np.bincount(np.asarray(rows).ravel(), minlength=8) / rows.size
    np.testing.assert_allclose(share, [1 / 24] * 6 + [1 / 4, 1 / 2], atol=0.01)
    # Without recordings every clip is its own recording.
    rows = jax.vmap(lambda key: draw(key, data._replace(recordings=None)))(keys)
    share = np.bincount(np.asarray(rows).ravel(), minlength=8) / rows.size
    np.testing.assert_allclose(share, [1 / 14] * 7 + [1 / 2], atol=0.01)


@pytest.mark.parametrize("kind", ["split", "device", "host"])
def test_some_clips_keep_their_recordings(splits, kind):
    host, device = splits
    numbers = jnp.asarray(np.arange(40) // 3, jnp.int32)
    whole = {
        "split": Clips(device.images, device.labels, recordings=numbers),
        "device": device._replace(recordings=numbers),
        "host": host._replace(recordings=numbers),
    }[kind]
    part = whole.subset(np.array([30, 31, 2, 39, 1]))
    assert part.recordings.tolist() == [1, 1, 0, 2, 0]


def test_both_kinds_of_split_give_the_same_clips(splits):
    host, device = splits
    rows = np.array([3, 0, 39])
    np.testing.assert_array_equal(host.take(rows), device.take(rows))
    np.testing.assert_array_equal(host.take(rows), device.images[rows])
    assert host.image_shape == device.image_shape == (4, 6)
