"""Active learning as a table, sentences and a picture."""

import re

import numpy as np
import pytest
from matplotlib.image import imread

from audiodd_jax.report import figures, learning_curves
from audiodd_jax.report.learning_curves import Curve, Point
from audiodd_jax.report.tables import markdown, mean_std

RANDOM = Curve("random", (10, 20, 40), np.array([[0.5, 0.7, 0.8], [0.6, 0.7, 0.9]]), 5)
BALD = Curve("bald", (10, 20, 40), np.array([[0.5, 0.6, 0.8], [0.6, 0.8, 0.9]]), 7)
CORESET = Point(20, (0.9, 0.8), 3)


def test_a_table_by_hand():
    text = markdown(learning_curves.table([RANDOM, BALD], [CORESET], [10, 40], 200))
    lines = [re.sub(" +", " ", line) for line in text.splitlines()]
    assert [lines[0], *lines[2:]] == [
        "| labels chosen by | 10 clips, 5.0 % | 20 clips, 10.0 % | 40 clips, 20.0 % "
        "| s |",
        "| random | 55.0 ± 7.1 | 70.0 ± 0.0 | 85.0 ± 7.1 | 5 |",
        "| bald | 55.0 ± 7.1 | 70.0 ± 14.1 | 85.0 ± 7.1 | 7 |",
        "| distilled coreset | | 85.0 ± 7.1 | | 3 |",
    ]
    assert mean_std([0.5]) == "50.0"


@pytest.mark.parametrize(
    ("accuracies", "told"),
    [((0.9,), "20.0 points above"), ((0.6,), "10.0 points below")],
)
def test_a_sentence_compares_the_coreset_with_the_curve(accuracies, told):
    (line,) = learning_curves.summary_sentences([RANDOM], [Point(20, accuracies, 1)])
    assert told in line
    assert "(random, 70.0 %)" in line


def test_a_coreset_of_another_size_is_reported():
    (line,) = learning_curves.summary_sentences([RANDOM], [Point(30, (0.9,), 1)])
    assert line.startswith("No acquisition function was tested at 30 clips")


@pytest.mark.parametrize("points", [[], [CORESET, Point(40, (0.95,), 1)]])
def test_a_picture(tmp_path, points):
    path = tmp_path / "curves.png"
    one = RANDOM._replace(accuracies=RANDOM.accuracies[:1])
    learning_curves.draw([one, BALD], points, 200, "tones", path)
    assert imread(path).std() > 0.05


def test_coresets_of_one_size_stand_side_by_side(monkeypatch, tmp_path):
    figure = figures.blank(4.0, 3.0)
    monkeypatch.setattr(figures, "blank", lambda *_: figure)
    of = lambda clips, name: Point(clips, (0.8,), 1, name)
    points = [of(20, "a"), of(20, "b"), of(20, "c"), of(40, "b")]
    learning_curves.draw([], points, 200, "tones", tmp_path / "points.png")
    at = [box.lines[0].get_xdata().tolist() for box in figure.axes[0].containers]
    assert [len(x) for x in at] == [1, 2, 1]
    assert at[0][0] < at[1][0] == 20 < at[2][0]
    # One of its own size stands at it.
    assert at[1][1] == 40
