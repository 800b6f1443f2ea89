"""Every method in the loop: resuming, streaming, factors, and selections of clips."""

import dataclasses

import checks
import jax
import numpy as np
import pytest
from test_loop import assert_same, data, on_host, run, settings

from audiodd_jax.config import fields, presets
from audiodd_jax.config.names import HEADS, MATCHING, METHODS, REGRESSION
from audiodd_jax.coreset import selection
from audiodd_jax.distillation import loop, registry, steps
from audiodd_jax.distillation.cost import Sizes
from audiodd_jax.distillation.method import Context
from audiodd_jax.errors import UserError

SMALL_MATCHING = {
    "matching__depth": 2,
    "matching__width": 4,
    "matching__real_per_class": 4,
    "matching__outer_loop": 3,
    "matching__inner_loop": 2,
    "augment__time_shift": 0.0,
}


def changes(method, **more):
    own = SMALL_MATCHING if method in MATCHING else {}
    return settings(method=method, **{**own, **more})


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("method", ["dsa", "dm"])
def test_a_resumed_run_matches_an_uninterrupted_one(tmp_path, method):
    config = changes(method)
    whole = run(tmp_path / "whole", config)
    # In the middle of a network's training, for dsa.
    with checks.killed_at(8):
        run(tmp_path / "killed", config)
    resumed = run(tmp_path / "killed", config)
    assert_same(whole.best, resumed.best)
    assert np.abs(whole.best.images - whole.start.images).max() > 0
    np.testing.assert_array_equal(whole.best.labels, whole.start.labels)
    # The last is kept, whatever kernel regression says on validation clips.
    assert whole.best_step == 12


def test_streamed_classes_match_those_on_the_device():
    config = changes("dm", loop__steps=4)
    device, host = (loop.distill(config, part) for part in on_host(data()))
    np.testing.assert_allclose(device.best.images, host.best.images, atol=1e-4)


@pytest.mark.parametrize("method", ["random", "herding", "k_center"])
def test_selections_are_real_clips_of_their_class(tmp_path, method):
    config, prepared = changes(method), data()
    found = run(tmp_path / "run", config)
    assert (found.steps, len(found.history)) == (0, 1)
    assert "validation_accuracy" in found.history[0]
    train = np.asarray(prepared.train.images).reshape(30, -1)
    rows = [
        int(np.flatnonzero((train == image.reshape(-1)).all(1))[0])
        for image in np.asarray(found.best.images)
    ]
    assert len(set(rows)) == 6
    np.testing.assert_array_equal(
        np.asarray(prepared.train.labels)[rows], found.best.labels.argmax(1)
    )
    assert_same(found.best, run(tmp_path / "again", config).best)
    assert_same(found.best, run(tmp_path / "run", config).best)
    other = loop.distill(dataclasses.replace(config, seed=1), prepared)
    if method == "random":
        assert np.abs(other.best.images - found.best.images).max() > 0


def test_other_methods_start_from_random_clips():
    start = loop.distill(changes("dm", loop__steps=2), data()).start
    assert_same(start, loop.distill(changes("random"), data()).best)


@pytest.mark.parametrize(
    ("method", "factor", "shape", "count"),
    [
        ("rfad", 2, (8, 8), 12),
        ("dm", 2, (8, 8), 12),
        ("herding", 2, (8, 8), 12),
        ("rfad", "2x2", (8, 8), 24),
        ("dm", "2x2:1", (4, 4), 6),
        ("frepo", "2x1:1", (4, 8), 6),
    ],
)
def test_packed_coresets_use_the_same_storage(method, factor, shape, count):
    config = changes(method, loop__steps=4, loop__keep="last", coreset__factor=factor)
    found = loop.distill(config, data())
    assert found.best.images.shape == (6, *shape, 1)
    assert found.best.labels.shape == (6, 3)
    more = found.best.unpack(factor)
    assert more.images.shape == (count, 8, 8, 1)
    assert np.isfinite(more.images).all()
    if method != "herding":
        assert np.abs(found.best.images - found.start.images).max() > 0


def test_a_packing_factor_needs_enough_clips_and_frames():
    with pytest.raises(UserError, match="the class 'a' has 10 training clips"):
        loop.distill(changes("herding", coreset__factor="16"), data())
    with pytest.raises(UserError, match="factor=3 does not divide the 8 frames"):
        loop.distill(changes("rfad", coreset__factor=3), data())


def test_matching_needs_a_clip_of_every_class():
    prepared = data()
    few = prepared.train.subset(np.flatnonzero(np.asarray(prepared.train.labels) != 1))
    prepared = dataclasses.replace(prepared, train=few)
    with pytest.raises(UserError, match="the class 'b' has 0 training clips"):
        loop.distill(changes("dm", coreset__init="noise"), prepared)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_valid_defaults(method):
    encoder = {"encoder__name": "speech_embedding"} if method in HEADS else {}
    config = presets.for_dataset("spoken_digit", method=method, **encoder)
    fields.validate(config)
    is_regression = method in REGRESSION
    assert config.coreset.learn_labels == is_regression
    keep = "last" if method in (*MATCHING, "frepo") else "best"
    assert config.loop.keep == keep


def test_settings_that_a_method_lacks_are_named():
    for name in ("learn_labels", "preconditioner"):
        config = presets.for_dataset("tones", method="dc", **{f"coreset__{name}": True})
        with pytest.raises(
            UserError, match=f"dc has fixed labels and learns images only.*{name}"
        ):
            fields.validate(config)
    config = presets.for_dataset("tones", method="dm", loop__patience=3)
    with pytest.raises(UserError, match=r"loop\.patience needs loop\.keep=best"):
        fields.validate(config)


def test_all_seeds_share_a_program():
    """Keys are arguments of the compiled steps, not constants."""
    prepared, method = data(), registry.get_method("dm")
    texts = []
    for seed in (0, 1):
        config = changes("dm", seed=seed)
        stats = prepared.normalization
        built = method(config, Context(Sizes(8, 8, 3, 6, 16, 30, 0), stats))
        key = jax.random.key(seed)
        chunk = steps.make_chunk(built, built.draw, config.augment, stats)
        given = (prepared.train, prepared.class_names, np.full(3, 2))
        start = selection.start(key, *given, config.coreset)
        state = built.init(key, start)
        lowered = chunk.lower(state, prepared.train, 2, key)
        texts.append(lowered.as_text())
    assert texts[0] == texts[1]
