"""Sizes of classes: sums, limits, order, and what is said of short classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiodd_jax.config import Config, CoresetConfig, fields, presets
from audiodd_jax.coreset import sizes
from audiodd_jax.errors import UserError
from audiodd_jax.flags import for_dataset

CLIPS = st.lists(st.integers(1, 40), min_size=1, max_size=8).map(np.array)
SPREADS = st.sampled_from(["even", "proportional"])
NAMES = tuple("abcdefgh")


def in_all(samples, spread="even", **changes):
    return CoresetConfig(samples_per_class=0, samples=samples, spread=spread, **changes)


def of(config, clips, method="rfad"):
    return sizes.of_classes(config, method, clips, NAMES)


@given(CLIPS, st.integers(0, 300), SPREADS, st.integers(1, 3))
def test_sizes_have_the_sum_and_stay_within_the_clips(clips, more, spread, factor):
    config = in_all(clips.size + more, spread, factor=str(factor))
    most = clips // factor
    if not most.all():
        with pytest.raises(UserError, match=r"too few for coreset\.factor"):
            of(config, clips)
        return
    found = of(config, clips)
    assert found.sum() == min(config.samples, most.sum())
    assert (found >= 1).all()
    assert (found <= most).all()
    # A class with more clips never has fewer spectrograms, nor does a larger coreset.
    assert (np.diff(found[np.argsort(-clips, kind="stable")]) <= 0).all()
    larger = of(in_all(config.samples + 1, spread, factor=str(factor)), clips)
    assert (larger >= found).all()


@given(CLIPS, st.integers(0, 100))
def test_an_even_spread_differs_only_where_clips_run_out(clips, more):
    found = of(in_all(clips.size + more), clips)
    others = found[found < clips]
    if others.size:
        assert others.max() - others.min() <= 1
        assert (found <= others.min() + 1).all()


@given(CLIPS, st.integers(1, 20))
def test_a_multiple_of_the_classes_is_that_many_of_each(clips, per_class):
    total = in_all(clips.size * per_class, init="noise")
    np.testing.assert_array_equal(of(total, clips), np.full(clips.size, per_class))
    each = CoresetConfig(samples_per_class=per_class)
    if per_class > clips.max():
        with pytest.raises(UserError, match="but the largest class"):
            of(each, clips)
    else:
        np.testing.assert_array_equal(of(each, clips), np.minimum(per_class, clips))


@given(CLIPS, st.integers(1, 50))
def test_a_proportional_spread_is_near_the_exact_shares(clips, more):
    samples = min(int(clips.sum()), clips.size + more)
    found = of(in_all(samples, "proportional"), clips)
    shares = samples * clips / clips.sum()
    if (shares >= 1).all():
        assert (np.abs(found - shares) < clips.size).all()
    same = of(in_all(int(clips.sum()), "proportional"), clips)
    np.testing.assert_array_equal(same, clips)


def test_remainders_go_to_the_classes_with_most_clips_then_to_the_first():
    clips = np.array([5, 9, 9, 7])
    assert of(in_all(9), clips).tolist() == [2, 3, 2, 2]
    assert of(in_all(10), clips).tolist() == [2, 3, 3, 2]
    assert of(in_all(11), clips).tolist() == [2, 3, 3, 3]
    clips = np.array([100, 10, 1])
    assert of(in_all(12, "proportional"), clips).tolist() == [10, 1, 1]


def test_a_short_class_takes_what_it_has_and_the_rest_goes_to_the_others():
    clips, names = np.array([9, 2, 9]), ("a", "b", "c")
    words = lambda config: sizes.shortage(config, "rfad", clips, names)
    assert of(in_all(12), clips).tolist() == [5, 2, 5]
    text = "too few training clips, so all are taken: b 2 of 4"
    assert words(in_all(12)) == f"{text}; the other classes have the rest"
    each = CoresetConfig(samples_per_class=4)
    assert of(each, clips).tolist() == [4, 2, 4]
    assert words(each) == f"{text}; 10 of 12 in all"
    assert words(CoresetConfig(samples_per_class=2)) == ""
    # Noise needs no clips, but selected clips do, whatever the start.
    noise = CoresetConfig(samples_per_class=4, init="noise")
    assert of(noise, clips).tolist() == [4, 4, 4]
    assert words(noise) == ""
    assert of(noise, clips, "herding").tolist() == [4, 2, 4]


def test_impossible_sizes_are_refused():
    with pytest.raises(UserError, match="samples=2, but each of the 3 classes"):
        of(in_all(2), np.array([4, 4, 4]))
    with pytest.raises(UserError, match=r"'b' has 0 training clips, or pass.*noise"):
        of(in_all(5), np.array([4, 0, 4]))


def test_more_than_any_class_has_is_refused():
    config = CoresetConfig(samples_per_class=5)
    with pytest.raises(UserError, match="largest class, 'c', has clips for 4"):
        of(config, np.array([3, 1, 4]))
    assert of(config, np.array([3, 1, 5])).tolist() == [3, 1, 5]


def test_a_size_is_given_in_one_way():
    # A dataset's own number per class gives way.
    config = for_dataset("esc10", samples=30, spread="proportional")
    assert config.coreset.samples_per_class == 0
    fields.validate(config)
    both = for_dataset("tones", samples=30, samples_per_class=3)
    with pytest.raises(
        UserError, match=r"samples=30 \(in all\) and samples_per_class=3"
    ):
        fields.validate(both)
    with pytest.raises(UserError, match="budget=16kB chooses the samples per class"):
        fields.validate(for_dataset("tones", samples=30, coreset__budget="16kB"))
    with pytest.raises(UserError, match="spread=proportional is for samples in all"):
        fields.validate(presets.for_dataset("tones", coreset__spread="proportional"))
    config = Config()
    config.coreset.samples_per_class = 0
    with pytest.raises(UserError, match="samples_per_class must be at least 1, not 0"):
        fields.validate(config)


def test_layers_of_a_nested_coreset():
    assert sizes.prefixes(1) == (1,)
    assert sizes.prefixes(5) == (1, 2, 5)
    assert sizes.prefixes(30) == (1, 2, 5, 10, 20, 30)
    found = sizes.layers(sizes.class_order(np.array([7, 2])))
    np.testing.assert_array_equal(found, [0, 1, 2, 2, 2, 3, 3, 0, 1])
    # A smaller coreset has the same layers.
    smaller = sizes.layers(sizes.class_order(np.array([5, 2])))
    np.testing.assert_array_equal(smaller, [0, 1, 2, 2, 2, 0, 1])
