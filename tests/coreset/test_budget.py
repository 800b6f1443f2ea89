"""Budgets: the file never exceeds one, and the least that works is named."""

import re

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from coresets import labelled

from audiodd_jax.config.packing import Packing, bytes_of
from audiodd_jax.coreset import budget
from audiodd_jax.coreset.budget import Problem
from audiodd_jax.coreset.file import Coreset
from audiodd_jax.errors import UserError


def metadata(n=1, factor=1, storage="int8", views=0, top_k=0):
    settings = {
        "coreset": {"samples_per_class": n, "factor": factor, "storage": storage},
        "views": {"top_k": top_k},
    }
    recipe = {"count": views, "seed": 7, "settings": {}}
    return {**labelled().metadata, "settings": settings, "views": recipe}


def problem(c=10, most=50, seconds=1.0, has_views=True, has_labels=False):
    names = [f"class {i}" for i in range(c)]
    own = {**metadata(), "class_names": names, "platt_scale": 1.0}
    return Problem((8, 16), c, most, seconds, has_views, has_labels, own)


def made(choice, given):
    """A coreset of the sizes that were chosen, with the longest of numbers."""
    c, packing = given.num_classes, Packing.parse(choice.factor)
    classes = np.repeat(np.arange(c), choice.samples_per_class)
    images = np.ones((classes.size, *packing.image_shape(given.shape), 1), np.float32)
    labels = np.eye(c, dtype=np.float32)[classes] - np.float32(1) / c
    views = choice.views * classes.size * packing.per_image
    shares = np.full((views, c), 1 / c, np.float16) if views else None
    own = {**metadata(*choice[:5]), "platt_scale": 1.2345678901234567}
    names = tuple(given.metadata["class_names"])
    labels = labels * 0.9 if given.has_labels else labels
    return Coreset(images, labels, names, own, shares, classes)


@hypothesis.given(
    limit=st.integers(1000, 100_000),
    c=st.integers(2, 300),
    seconds=st.sampled_from([1.0, 5.0]),
    has_views=st.booleans(),
    has_labels=st.booleans(),
)
@hypothesis.settings(deadline=None, max_examples=40)
def test_the_file_never_exceeds_the_budget(
    tmp_path_factory, limit, c, seconds, has_views, has_labels
):
    given = problem(c, 50, seconds, has_views, has_labels)
    try:
        choice = budget.choose(limit, given)
    except UserError as error:
        least = int(
            re.search("least budget is ([0-9,]+)", str(error))[1].replace(",", "")
        )
        assert least > limit
        assert budget.choose(least, given).samples_per_class == 1
        with pytest.raises(UserError):
            budget.choose(least - 1, given)
        return
    path = tmp_path_factory.mktemp("budget") / "c.npz"
    made(choice, given).save(path)
    # Only the numbers in the metadata differ from the estimate.
    assert (
        choice.bytes - 2 * budget._SLACK < path.stat().st_size <= choice.bytes <= limit
    )
    assert choice.samples_per_class <= 50
    assert (choice.views >= 4) == has_views


def test_more_bytes_buy_more():
    chosen = [budget.choose(limit, problem()) for limit in (3000, 10_000, 100_000)]
    pixels = [
        one.samples_per_class / Packing.parse(one.factor).mel ** 2 for one in chosen
    ]
    assert pixels == sorted(pixels)
    assert pixels[0] < pixels[1] < pixels[2]


def test_short_clips_are_stored_smaller_if_networks_learn_from_views():
    limit = 15_000
    factor = lambda **own: budget.choose(limit, problem(**own)).factor
    assert factor(seconds=1.0) == "2x2:1"
    assert factor(seconds=5.0) == factor(seconds=1.0, has_views=False) == 1
    # Few clips are whole if all of them fit.
    assert factor(seconds=1.0, most=4) == 1
    # Three small ones are better than two of the next size.
    assert budget.choose(3600, problem(seconds=5.0)).factor == "2x2:1"
    # Of many classes, views have their largest labels.
    assert budget.choose(40_000, problem(c=65)).top_k == 32
    assert budget.choose(40_000, problem(c=64)).top_k == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("16kB", 16_000),
        ("16 KiB", 16_384),
        ("1MB", 10**6),
        ("1.5mib", 1_572_864),
        ("4000", 4000),
        ("4000 B", 4000),
        ("many", 0),
        ("-4kB", 0),
    ],
)
def test_numbers_of_bytes(text, expected):
    assert bytes_of(text) == expected


def test_the_choice_in_words():
    words = budget.in_words(budget.choose(40_000, problem(c=65)).changes)
    assert re.fullmatch(
        r"\d+ per class, packed .x.:1, int2, \d+ views of each with the 32 largest "
        "labels",
        words,
    )


RATE = "optimizer.learning_rate"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, {"method": "random"}), ({"is_short": False}, {RATE: 3e-3}),
     ({"factor": 1}, {}), ({"views": 0}, {}),
     ({"method": "herding"}, {}), ({"nested": True}, {RATE: 3e-3}),
     ({"preconditioner": True, "rate": 1e-3}, {RATE: 1e-3}),
     ({"init": "c.npz"}, {RATE: 3e-3})],
)  # fmt: skip
def test_small_spectrograms_for_networks_stay_as_they_are(changes, expected):
    own = {"factor": "2x2:1", "views": 4, "method": "rfad", "rate": 3e-2, **changes}
    coreset = {"init": "real", "nested": False, "preconditioner": False}
    settings = {
        "method": own["method"],
        "rfad": {"views": own["views"]},
        "optimizer": {"learning_rate": own["rate"]},
        "coreset": {name: own.get(name, value) for name, value in coreset.items()},
    }
    is_short = own.get("is_short", True)
    assert budget.learning(settings, own["factor"], is_short) == expected
