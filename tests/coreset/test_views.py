"""Views of a coreset, reproducible from its file alone."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from coresets import images, labelled

from audiodd_jax.config import AugmentConfig, ViewsConfig
from audiodd_jax.coreset import views
from audiodd_jax.coreset.file import load_coreset
from audiodd_jax.errors import UserError
from audiodd_jax.features.normalization import Normalization

STATS = Normalization(np.full(8, -30, np.float32), np.full(8, 12, np.float32))
PLAIN = ViewsConfig(mixed=0.0, augment=AugmentConfig())
PRINT = (
    "import sys, hashlib, audiodd_jax; "
    "v = audiodd_jax.load_coreset(sys.argv[1]).views(); "
    "print(type(v.images).__module__, v.images.dtype, "
    "hashlib.sha256(v.images.tobytes() + v.labels.tobytes()).hexdigest())"
)


@pytest.mark.parametrize("factor", [1, 2])
def test_another_process_makes_the_same_views_from_the_file(tmp_path, factor):
    """For any JAX settings of the other process."""
    labelled(factor=factor).save(tmp_path / "c.npz")
    found = load_coreset(tmp_path / "c.npz").views()
    assert found.images.shape == (18 * factor, 8, 16, 1)
    assert found.labels.shape == (18 * factor, 2)
    assert type(found.images) is type(found.labels) is np.ndarray
    digest = hashlib.sha256(found.images.tobytes() + found.labels.tobytes())
    other = {
        **os.environ,
        "JAX_ENABLE_X64": "1",
        "JAX_THREEFRY_PARTITIONABLE": "0",
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
    }
    command = [sys.executable, "-c", PRINT, str(tmp_path / "c.npz")]
    done = subprocess.run(command, env=other, capture_output=True, text=True)
    assert done.stdout.split() == ["numpy", "float32", digest.hexdigest()], done.stderr


def test_views_differ_from_each_other_and_by_seed():
    make = lambda seed: views.make(images(), 2, ViewsConfig(), STATS, seed)
    first, second = np.split(make(0), 2)
    assert np.abs(first - second).max() > 0.1
    assert np.abs(make(0) - make(1)).max() > 0.1
    np.testing.assert_array_equal(make(0), make(0))


def test_layers_do_not_depend_on_each_other():
    layers, some = np.array([0, 1, 0, 1, 0, 1]), images()
    make = lambda some, layers: views.make(some, 2, ViewsConfig(), STATS, 3, layers)
    both = make(some, layers).reshape(2, *some.shape)
    lower = layers == 0
    first = make(some[lower], layers[lower]).reshape(2, 3, *some.shape[1:])
    np.testing.assert_array_equal(both[:, lower], first)
    # The first layer has the views that it has as a coreset of its own.
    alone = views.make(some[lower], 2, ViewsConfig(), STATS, 3)
    np.testing.assert_array_equal(first.reshape(alone.shape), alone)
    mirrored = make(some, 1 - layers).reshape(both.shape)
    assert np.abs(both - mirrored).max() > 0.1


def test_more_views_keep_the_earlier_ones():
    few = views.make(images(), 2, ViewsConfig(), STATS, 3)
    many = views.make(images(), 4, ViewsConfig(), STATS, 3)
    np.testing.assert_array_equal(many[: len(few)], few)


def test_without_views_or_changes_the_spectrograms_are_kept():
    np.testing.assert_array_equal(
        views.make(images(), 0, ViewsConfig(), STATS, 0), images()
    )
    np.testing.assert_array_equal(views.make(images(), 1, PLAIN, STATS, 0), images())


def test_mixed_views_are_convex_combinations_of_two_spectrograms():
    """One-hot images: a view's values are its weights of the spectrograms."""
    eye = np.eye(128, dtype=np.float32)[:6].reshape(6, 8, 16, 1)
    for mixed, fewest in ((0.0, 6), (1.0, 0)):
        config = dataclasses.replace(PLAIN, mixed=mixed)
        made = views.make(eye, 1, config, STATS, 0).reshape(6, -1)
        np.testing.assert_allclose(made.sum(1), 1, rtol=1e-6)
        assert (made >= 0).all()
        assert ((made > 0).sum(1) <= 2).all()
        assert (made.max(1) == 1).sum() >= fewest
    assert (made.max(1) < 1).any()


def test_background_noise_is_refused():
    from audiodd_jax.config import Config, fields

    config = fields.replace(Config(), {"views.augment.background": 0.5})
    with pytest.raises(UserError, match="has no background noise"):
        fields.validate(config)
    config = fields.replace(Config(), {"coreset.views": 5})
    with pytest.raises(UserError, match="labelled by a teacher: set"):
        fields.validate(config)


def test_a_coreset_without_a_teacher_has_no_views():
    with pytest.raises(UserError, match="no teacher labels"):
        labelled(teacher_labels=None).views()


def test_labels_count_in_the_size():
    with_labels, without = labelled(), labelled(teacher_labels=None)
    assert with_labels.num_bytes - without.num_bytes == 18 * 2 * 2
    assert with_labels.num_values - without.num_values == 18 * 2


@pytest.mark.parametrize(
    "labels",
    [
        np.full((17, 2), 0.5, np.float16),
        np.full((18, 2), np.nan, np.float16),
        np.full((18, 2), 1.5, np.float16),
    ],
    ids=["rows", "nan", "range"],
)
def test_damaged_labels_are_refused(tmp_path, labels):
    labelled(teacher_labels=labels).save(tmp_path / "c.npz")
    with pytest.raises(UserError, match="damaged"):
        load_coreset(tmp_path / "c.npz")


def test_labels_without_their_views_settings_are_refused(tmp_path):
    coreset = labelled()
    metadata = {k: v for k, v in coreset.metadata.items() if k != "views"}
    path = tmp_path / "c.npz"
    dataclasses.replace(coreset, metadata=metadata).save(path)
    with pytest.raises(UserError, match="not a coreset"):
        load_coreset(path)
    assert "views" not in json.loads(str(np.load(path)["metadata"]))


def nested(**changes):
    """Three spectrograms of each of two classes, whose first one or two can be cut."""
    coreset = labelled(made_for=np.repeat([0, 1], 3), **changes)
    settings = {
        "nested": True,
        "samples_per_class": 3,
        **coreset.metadata["settings"]["coreset"],
    }
    return dataclasses.replace(
        coreset, metadata={**coreset.metadata, "settings": {"coreset": settings}}
    )


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("first", [1, 2, 3])
def test_the_first_of_a_nested_coreset_keep_their_views(tmp_path, factor, first):
    whole = nested(factor=factor)
    whole.first(first).save(tmp_path / "c.npz")
    cut = load_coreset(tmp_path / "c.npz")
    np.testing.assert_array_equal(cut.classes, np.repeat([0, 1], first))
    is_kept = np.repeat(np.tile(np.arange(3) < first, 2), factor)
    for found, expected in zip(cut.views(), whole.views(), strict=True):
        of_views = expected.reshape(3, 6 * factor, *expected.shape[1:])[:, is_kept]
        np.testing.assert_array_equal(found, of_views.reshape(found.shape))
    assert cut.metadata["settings"]["coreset"]["samples_per_class"] == first
    assert whole.metadata["settings"]["coreset"]["samples_per_class"] == 3


def test_only_the_sizes_of_a_nested_coreset_can_be_cut():
    with pytest.raises(UserError, match="has the sizes 1, 2, 3 per class, not 4"):
        nested().first(4)
    with pytest.raises(UserError, match="not nested: distil it with --nested"):
        labelled().first(1)
