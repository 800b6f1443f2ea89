"""Budgets: their meaning, and refused ones."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiodd_jax.active_learning import rounds
from audiodd_jax.config import ActiveConfig
from audiodd_jax.errors import UserError


def plan(*texts, initial="1/class", batch=0, pool=180, counted=0):
    settings = ActiveConfig(budgets=texts, initial=initial, batch=batch)
    return rounds.plan(settings, 200, 10, pool, counted)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10/class", 100), ("0.2", 40), ("20%", 40), ("12.5 %".replace(" ", ""), 25),
     ("1", 200), ("100%", 200), (".5", 100), ("0.001", 1)],
)  # fmt: skip
def test_budgets_are_parsed(text, expected):
    assert rounds.clips_in(text, 200, 10) == expected


@pytest.mark.parametrize(
    "text", ["0", "0/class", "-1", "1.5", "120%", "ten", "10/clas", "", "200", "nan"]
)
def test_malformed_budgets_are_refused(text):
    with pytest.raises(UserError, match="a budget is a fraction"):
        rounds.clips_in(text, 200, 10)


def test_rounds_end_on_budgets():
    assert plan("20%", "0.4") == (10, 40, 80)
    assert plan("1/class", "20%") == (10, 40)  # the seed set is the first budget
    assert plan("20%", "0.4", batch=25) == (10, 35, 40, 65, 80)
    assert plan("20%", "0.4", counted=20) == (10, 20, 60)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ((), {}, "at least one budget"),
        (
            ("40%", "20%"),
            {},
            r"must increase: the budget 20% is 40 clips, after 80",
        ),
        (("20%", "20%"), {}, "budgets must increase"),
        (("1%",), {}, "after 10 of the seed set 1/class"),
        (("100%",), {}, r"200 clips, but the pool has 180 .* 20 for validation"),
        (("20/class",), {"pool": 200, "initial": "0.5"}, None),
        (("30/class",), {"pool": 200}, r"300 clips, but the pool has 200"),
        (
            ("20%",),
            {"initial": "20/class"},
            "is 200 clips, but the pool has 180",
        ),
        (("10%",), {"counted": 20}, r"0 clips \(less 20 validation clips\)"),
    ],
)
def test_budgets_that_shrink_or_exceed_the_pool(texts, options, message):
    if message is None:
        assert plan(*texts, **options)[-1] == 200
        return
    with pytest.raises(UserError, match=message):
        plan(*texts, **options)


@given(
    st.lists(st.integers(1, 18), min_size=1, max_size=5, unique=True),
    st.integers(0, 70),
)
def test_rounds_rise_by_at_most_the_batch(per_class, batch):
    per_class = sorted(per_class)
    texts = [f"{n}/class" for n in per_class]
    counts = plan(*texts, batch=batch)
    steps = [b - a for a, b in itertools.pairwise(counts)]
    assert all(0 < step <= (batch or 200) for step in steps)
    assert {10 * n for n in per_class} <= set(counts)
    assert counts[-1] == 10 * per_class[-1]
