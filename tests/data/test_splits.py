import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiodd_jax.config import DataConfig
from audiodd_jax.data import splits
from audiodd_jax.errors import UserError


def assign(labels, *, marks=None, folds=None, groups=None, **config):
    size = len(labels)
    return splits.assign(
        np.asarray(labels, np.int32),
        np.full(size, "") if marks is None else np.asarray(marks),
        np.zeros(size, np.int32) if folds is None else np.asarray(folds, np.int32),
        np.full(size, "") if groups is None else np.asarray(groups),
        DataConfig(**config),
    )


@settings(max_examples=50, deadline=None)
@given(
    per_class=st.integers(16, 40),
    classes=st.integers(2, 5),
    group_size=st.integers(1, 4),
    fraction=st.floats(0, 0.6),
    seed=st.integers(0, 100),
)
def test_validation_is_disjoint_whole_groups_and_balanced(
    per_class, classes, group_size, fraction, seed
):
    labels = np.repeat(np.arange(classes), per_class)
    groups = [f"g{i // group_size}-{label}" for i, label in enumerate(labels)]
    parts = assign(
        labels,
        groups=groups,
        validation_fraction=fraction,
        test_fraction=0.2,
        split_seed=seed,
    )
    together = np.concatenate(parts)
    assert sorted(together) == list(range(labels.size))
    names = [{groups[i] for i in part} for part in parts]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    # Every class keeps training clips, and holds out its share to within a group.
    left = np.bincount(np.delete(labels, parts.test), minlength=classes)
    held = np.bincount(labels[parts.validation], minlength=classes)
    assert (np.bincount(labels[parts.train], minlength=classes) > 0).all()
    assert (np.abs(held - fraction * left) <= group_size).all()


def test_the_seed_draws_another_split_and_the_same_seed_the_same():
    labels = np.repeat([0, 1], 40)
    first, again = (assign(labels, split_seed=1) for _ in range(2))
    other = assign(labels, split_seed=2)
    np.testing.assert_array_equal(first.test, again.test)
    np.testing.assert_array_equal(first.validation, again.validation)
    assert not np.array_equal(first.validation, other.validation)


def test_given_splits_are_kept():
    marks = ["train", "train", "validation", "test"] * 5
    parts = assign([0, 1, 0, 1] * 5, marks=marks)
    for part, name in zip(parts, ("train", "validation", "test"), strict=True):
        assert {marks[i] for i in part} == {name}


def test_folds():
    folds = np.tile([1, 2, 3], 10)
    labels = np.repeat([0, 1], 15)
    last = assign(labels, folds=folds)
    assert set(folds[last.test]) == {3}
    first = assign(labels, folds=folds, fold=1)
    assert set(folds[first.test]) == {1}
    assert first.test.size == 10
    with pytest.raises(UserError, match="no fold 4; the data has folds 1, 2, 3"):
        assign(labels, folds=folds, fold=4)
    with pytest.raises(UserError, match="needs data with folds"):
        assign(labels, fold=1)


def test_no_validation_split_if_its_fraction_is_zero():
    assert assign([0, 1] * 10, validation_fraction=0.0).validation.size == 0


@pytest.mark.parametrize("name", ["validation_fraction", "test_fraction"])
def test_fractions_out_of_range(name):
    with pytest.raises(UserError, match=rf"{name} must be in \[0, 1\)"):
        assign([0, 1] * 10, **{name: 1.0})


def test_a_split_left_empty_is_named():
    with pytest.raises(UserError, match="no clip is left for the test split"):
        assign([0, 1] * 10, test_fraction=0.0)


def test_a_single_fold_is_divided_only_with_allow_partial():
    labels, groups = np.repeat([0, 1, 2], 12), np.repeat(np.arange(18), 2).astype(str)
    folds = np.full(36, 3)
    with pytest.raises(UserError, match="the data has fold 3 only"):
        assign(labels, folds=folds, groups=groups)
    parts = assign(labels, folds=folds, groups=groups, allow_partial=True)
    assert min(part.size for part in parts) > 0
    assert not set(groups[parts.train]) & set(groups[parts.test])
    assert np.bincount(labels[parts.test]).tolist() == [2, 2, 2]
    # With several folds, one of them tests, whatever is missing.
    folds = np.repeat([3, 4], 18)
    parts = assign(labels, folds=folds, groups=groups, allow_partial=True)
    assert set(folds[parts.test]) == {4}


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    fraction=st.floats(0, 0.9),
    seed=st.integers(0, 1000),
)
def test_single_clips_are_held_out_as_groups_of_one(labels, fraction, seed):
    """Exactly the share of each class, and never all of it."""
    labels = np.array(labels)
    clips, alone = np.arange(labels.size), np.full(labels.size, "")
    rng = np.random.default_rng(seed)
    held = splits.hold_out(clips, labels, alone, fraction, rng)
    sizes = np.bincount(labels)
    wanted = np.floor(fraction * sizes + 0.5)
    counts = np.bincount(labels[held], minlength=sizes.size)
    np.testing.assert_array_equal(counts, np.minimum(wanted, np.maximum(sizes - 1, 0)))


def describe(names, class_names=("a", "b"), data="folder", **columns):
    size = len(names)
    clips = SimpleNamespace(
        names=names,
        class_names=class_names,
        labels=np.arange(size) % len(class_names),
        splits=np.array(columns.get("marks", [""] * size)),
        folds=np.array(columns.get("folds", [0] * size)),
        groups=np.array(columns.get("groups", [""] * size)),
    )
    config = DataConfig(data, fold=columns.get("fold", 0))
    given = (clips.labels, clips.splits, clips.folds, clips.groups, config)
    parts = splits.assign(*given)
    return splits.describe(clips, parts, config), parts


def test_a_given_test_split_precedes_folds_unless_one_is_asked_for():
    marks, folds = ["test"] * 4 + ["train"] * 16, [1, 2] * 10
    names = list("abcdefghijklmnopqrst")
    words, parts = describe(names, marks=marks, folds=folds)
    assert parts.test.tolist() == [0, 1, 2, 3]
    assert words["split"] == "the given test split; folds are not used without --fold"
    words, parts = describe(names, marks=marks, folds=folds, fold=2)
    assert parts.test.tolist() == list(range(1, 20, 2))
    expected = "fold 2 is the test split; --fold precedes the split of 4 test clips"
    assert words["split"] == expected
    words, _ = describe(names, marks=["test"] * 4 + [""] * 16)
    assert words["split"].endswith("; 16 clips that name no split are for training")
    words, _ = describe(names, marks=["train"] * 20)
    expected = "20% of each class at random for test; since only a training split"
    assert words["split"].startswith(expected)


def test_groups_are_described():
    names = [f"{i}.wav" for i in range(20)]
    words, _ = describe(names, groups=[f"s{i // 2}" for i in range(20)])
    assert words["groups"] == "10 groups, none divided"
    groups, marks = ["s1", *[""] * 18, "s1"], ["train"] * 10 + ["test"] * 10
    words, _ = describe(names, groups=groups, marks=marks)
    assert words["groups"] == "1 group, 1 divided"
    words, _ = describe(names)
    assert re.fullmatch("no groups: clips of one .* in a column group", words["groups"])
    assert describe(names, data="tones")[0]["groups"] == "none"


def test_names_that_may_be_recordings_or_speakers():
    names = [f"d/rec{i // 4:03d}_{i % 4}.wav" for i in range(20)]
    words, _ = describe(names)
    assert (
        "names of files share 5 beginnings, which may be recordings, such as rec000"
        in (words["groups"])
    )
    actors = tuple(f"Actor_{i:02d}" for i in range(1, 5))
    words, _ = describe([f"{i}.wav" for i in range(20)], actors)
    assert words["groups"].endswith(
        "; Actor_01 to Actor_04: are these speakers rather than classes?"
    )
    assert "speakers rather" not in describe([*"abcdefghij"], ("1", "2"))[0]["groups"]
