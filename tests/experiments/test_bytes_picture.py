"""Accuracy against bytes: means over seeds, and the picture."""

import importlib

import pytest


@pytest.fixture
def script(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    return importlib.import_module("bytes_picture")


def row(arm, seed, test, **changes):
    own = {"arm": arm, "seed": seed, "test": test, "dataset": "tones", "fixed": []}
    return {**own, "budget": "1x", "bytes": 9_000, "words": "1 per class", **changes}


def test_points_are_means_over_seeds(script, tmp_path):
    rows = [
        row("random clips", 0, 0.5),
        row("coreset", 0, 0.6),
        row("coreset", 1, 0.7),
        row("coreset", 0, 0.9, bytes=90_000, budget="10x"),
        row("coreset", 0, 0.1, fixed=["coreset.views=1"]),  # not the rule's choice
        {**row("audio", 0, 0.2), "validation": 0.3},
    ]
    del rows[-1]["test"]
    first, second, third = script.points(rows, "test")
    assert (first.arm, first.bytes, first.seeds) == ("coreset", 9_000, 2)
    assert first.mean == pytest.approx(65.0)
    assert first.std == pytest.approx(50**0.5)
    assert (second.arm, second.std, second.seeds) == ("random clips", 0.0, 1)
    assert (third.bytes, third.budget) == (90_000, "10x")
    assert [point.arm for point in script.points(rows, "validation")] == ["audio"]
    script.draw({"tones": [first, second, third]}, "test", tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000
