"""Stored numbers: what is read back, and the bytes of the file."""

import dataclasses
import os

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coresets import images, labelled

from audiodd_jax.coreset import storage
from audiodd_jax.coreset.arrays import rounded
from audiodd_jax.coreset.file import load_coreset
from audiodd_jax.errors import UserError

STORAGES = ("float32", "float16", "int8", "int4", "int2")
some = hypothesis.settings(deadline=None, max_examples=30)


def values(seed, shape, scale=3.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def shares(seed, k, c, sharpness=3.0):
    """Probabilities of ``k`` views, from nearly even to nearly certain."""
    logits = np.random.default_rng(seed).normal(size=(k, c)) * sharpness
    exp = np.exp(logits - logits.max(1, keepdims=True))
    return (exp / exp.sum(1, keepdims=True)).astype(np.float16)


@hypothesis.given(
    seed=st.integers(0, 99), kind=st.sampled_from(STORAGES), scale=st.floats(0, 1e4)
)
@some
def test_values_are_read_back_within_their_bounds(seed, kind, scale):
    given = values(seed, (4, 3, 5, 1), scale)
    found = storage.read_back("image", given, kind)
    largest = np.abs(given).max((1, 2, 3), keepdims=True)
    reach = np.ptp(given, (1, 2, 3), keepdims=True)
    bound = {
        "float32": 0,
        "float16": 2**-11 * np.abs(given) + 1e-7,
        "int8": np.maximum(largest / 127, 2.0**-10) * (0.5 + 127 * 2.0**-11),
        "int4": np.maximum(reach / 15, 2.0**-10) * 0.51 + largest * 2.0**-10,
        "int2": np.maximum(reach / 3, 2.0**-10) * 0.51 + largest * 2.0**-10,
    }[kind]
    assert (np.abs(found - given) <= bound).all()
    # Storing what was read changes nothing.
    np.testing.assert_array_equal(storage.read_back("image", found, kind), found)


@pytest.mark.parametrize("kind", ["int4", "int2"])
@pytest.mark.parametrize("mel_bins", [8, 5])
def test_the_loss_rounds_as_the_file_does(kind, mel_bins):
    given = values(0, (3, mel_bins, 6, 1))
    weights = values(1, given.shape)
    total = lambda images: jnp.sum(weights * rounded(images, kind))
    found = rounded(jnp.asarray(given), kind)
    # The file's scales have 11 bits.
    expected = storage.read_back("image", given, kind)
    np.testing.assert_allclose(found, expected, atol=0.02)
    np.testing.assert_array_equal(jax.grad(total)(jnp.asarray(given)), weights)
    assert all(len(np.unique(one)) <= 2 ** int(kind[3:]) for one in expected)
    assert rounded(found, "int8") is found


@hypothesis.given(
    seed=st.integers(0, 99),
    kind=st.sampled_from(STORAGES),
    num_classes=st.sampled_from([2, 3, 10, 300]),
    top_k=st.sampled_from([0, 1, 2, 5, 300]),
    has_tags=st.booleans(),
    sharpness=st.sampled_from([0.0, 1.0, 5.0]),
)
@some
def test_labels_of_views_are_read_back_within_their_bounds(
    seed, kind, num_classes, top_k, has_tags, sharpness
):
    given = shares(seed, 6, num_classes, sharpness)
    arrays = storage.encode_views(given, kind, top_k, has_tags)
    found = storage.decode_views(arrays, num_classes, has_tags)
    step = 1.01 / 255 if kind in storage.INTEGERS else 2**-11
    kept = np.argsort(-given, 1, kind="stable")[:, : top_k or num_classes]
    pick = lambda x: np.take_along_axis(x.astype(np.float32), kept, 1)
    assert np.abs(pick(found) - pick(given)).max() <= step + 2**-11
    is_all = kept.shape[1] == num_classes
    if not has_tags:
        np.testing.assert_allclose(found.astype(float).sum(1), 1, atol=0.02)
    elif not is_all:
        assert (np.sort(found, 1)[:, : num_classes - top_k] == 0).all()
    if not is_all:
        wide = np.uint8 if num_classes <= 256 else np.uint16
        assert arrays["teacher_classes"].dtype == wide


def test_the_rest_of_the_probability_is_spread_evenly():
    given = np.float16([[0.5, 0.25, 0.125, 0.125]])
    for kind in STORAGES:
        arrays = storage.encode_views(given, kind, 2, False)
        found = storage.decode_views(arrays, 4, False)
        np.testing.assert_allclose(found, given, atol=0.005)


def stored(kind="int8", top_k=0, **changes):
    """A coreset of six images, of the classes 0, 0, 0, 1, 1, 1."""
    coreset = labelled()
    settings = {
        "coreset": {"storage": kind, "factor": 1},
        "views": {"top_k": top_k},
    }
    metadata = {**coreset.metadata, "settings": settings}
    classes = np.repeat(np.arange(2), 3)
    labels = np.eye(2, dtype=np.float32)[classes] - np.float32(0.5)
    given = {"metadata": metadata, "made_for": classes, "labels": labels, **changes}
    return dataclasses.replace(coreset, **given)


@pytest.mark.parametrize("kind", STORAGES)
@pytest.mark.parametrize("top_k", [0, 1])
def test_a_file_gives_back_what_the_coreset_says(tmp_path, kind, top_k):
    coreset, path = stored(kind, top_k), tmp_path / "c.npz"
    expected = coreset.read_back()
    for one in (coreset, expected):
        one.save(path)
        found = load_coreset(path)
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.teacher_labels, expected.teacher_labels)
        np.testing.assert_array_equal(found.classes, coreset.classes)
        assert found.images.dtype == found.labels.dtype == np.float32
        assert found.class_names == coreset.class_names
        assert found.metadata == coreset.metadata
        assert found.storage == kind
        assert found.file_bytes == one.file_bytes
        assert found.file_bytes.total == os.path.getsize(path)
    # Hard labels follow from the classes.
    with np.load(path) as file:
        assert ("labels" in file.files) == (kind == "float32")
    np.testing.assert_array_equal(found.labels, coreset.labels)
    small = values(1, (6, 2), 0.3)
    dataclasses.replace(coreset, labels=small).save(path)
    np.testing.assert_allclose(load_coreset(path).labels, small, atol=0.01)


@hypothesis.given(
    shapes=st.lists(
        st.lists(st.integers(0, 300), max_size=3).map(tuple), min_size=1, max_size=4
    ),
    kind=st.sampled_from(["float32", "float16", "int8", "uint8", "U7"]),
)
@some
def test_the_bytes_of_a_file_are_exact(tmp_path_factory, shapes, kind):
    arrays = {
        f"array{'x' * i}": np.broadcast_to(np.zeros((), kind), shape)
        for i, shape in enumerate(shapes)
        if np.prod(shape) < 1e5
    }
    path = tmp_path_factory.mktemp("bytes") / "a.npz"
    np.savez(path, **arrays)
    assert storage.count(arrays).total == path.stat().st_size


def test_images_and_labels_are_counted_apart():
    size = stored("int8", 1).file_bytes
    # A scale of two bytes per image; a share and a class per view.
    assert size.images == 6 * (8 * 16 + 2)
    assert size.labels == 18 * 2
    # Two or four values in a byte, a scale and a lowest value.
    assert stored("int4").file_bytes.images == 6 * (4 * 16 + 4)
    assert stored("int2").file_bytes.images == 6 * (2 * 16 + 4)
    assert stored("float32").file_bytes[:2] == (6 * 8 * 16 * 4, 6 * 2 * 4 + 18 * 2 * 2)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("images", images().astype(np.float64)),
        ("image_scale", np.ones(4, np.float16)),
        ("images", np.zeros((6, 8, 16, 1), np.uint8)),
        ("classes", np.full(6, 2, np.uint8)),
        ("classes", np.zeros(6)),
        ("teacher_labels", np.zeros((18, 1), np.int8)),
        ("teacher_classes", np.full((18, 1), 2, np.uint8)),
        ("teacher_classes", np.zeros((18, 1))),
        ("metadata", np.zeros(9, np.uint8)),
    ],
)
def test_damaged_arrays_are_refused(tmp_path, name, array):
    stored("int8", 1).save(tmp_path / "c.npz")
    with np.load(tmp_path / "c.npz") as file:
        arrays = {**dict(file), name: array}
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(UserError, match=r"not a coreset|damaged"):
        load_coreset(tmp_path / "c.npz")
