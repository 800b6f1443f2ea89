"""Ticks, places and ranges of the page's charts."""

import numpy as np
import pytest

from audiodd_jax.report import charts
from audiodd_jax.report.charts import BOTTOM, LEFT, RIGHT, TOP, Series


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (8.0, 120.0, [10, 20, 50, 100]),
        (8.0, 2000.0, [10, 30, 100, 300, 1000]),
        (1.0, 1e6, [1, 1e2, 1e4, 1e6]),
        (6e4, 6e5, [100_000, 200_000, 500_000]),
        (21.0, 22.0, [21, 22]),
    ],
)
def test_logarithmic_ticks(low, high, wanted):
    found = charts.log_ticks(low, high)
    np.testing.assert_allclose(found, wanted)


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0.0, 50.0, [0, 10, 20, 30, 40, 50]),
        (0.0, 400.0, [0, 100, 200, 300, 400]),
        (40.0, 90.0, [40, 50, 60, 70, 80, 90]),
        (30.0, 100.0, [40, 60, 80, 100]),
    ],
)
def test_linear_ticks(low, high, wanted):
    np.testing.assert_allclose(charts.linear_ticks(low, high), wanted)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (50.0, "50"), (1500.0, "1.5 k"), (411_600.0, "412 k"), (2e7, "20 M")],
)
def test_numbers_are_short(value, text):
    assert charts.short(value) == text


def test_points_are_drawn_at_their_values():
    """Equal ratios are equal distances on a logarithmic axis."""
    series = [Series(i + 1, "x", [(10.0**i, 0.2 * i)]) for i in (1, 2, 3)]
    found = charts.chart("t", "bytes", "%", series)
    (x1, y1), (x2, y2), (x3, y3) = (mark.points[0] for mark in found.marks)
    assert x2 - x1 == pytest.approx(x3 - x2)
    assert y1 - y2 == pytest.approx(y2 - y3)
    assert LEFT < x1 < x3 < RIGHT
    # The range is 20 to 60 %: its ends are those of the axis.
    assert (y1, y3) == pytest.approx((BOTTOM, TOP))
    assert found.marks[0].values == "20.0 % at 10 bytes"
    assert [text for _, text in found.y_ticks] == ["20", "30", "40", "50", "60"]
    assert found.x_ticks[0][0] == pytest.approx(x1)


@pytest.mark.parametrize("accuracy", [0.0, 0.005, 0.5, 0.999, 1.0])
def test_a_single_point_is_inside_a_long_enough_axis(accuracy):
    series = [Series(1, "x", [(50.0, accuracy)], start=accuracy)]
    found = charts.chart("t", "bytes", "%", series)
    ((x, y),) = found.marks[0].points
    assert x == pytest.approx((LEFT + RIGHT) / 2)
    assert TOP <= y <= BOTTOM
    assert found.marks[0].start == (x, y)
    values = [float(text) for _, text in found.y_ticks]
    assert 0 <= values[0] <= values[-1] - 20
    assert values[-1] <= 100


def test_the_axis_of_steps_starts_at_zero():
    series = [Series(1, "x", [(0.0, 0.1), (50.0, 0.4)])]
    found = charts.chart("t", "steps", "%", series)
    assert [x for x, _ in found.marks[0].points] == [LEFT, RIGHT]
    only_start = [Series(1, "x", [(0.0, 0.1)])]
    assert charts.chart("t", "steps", "%", only_start).marks


def test_labels_of_close_points_do_not_overlap():
    series = [Series(i, "x", [(100 + i / 10, 0.5 + i / 1000)]) for i in range(12)]
    found = charts.chart("t", "bytes", "%", series)
    labels = [mark.label for mark in found.marks]
    for i, (x, y) in enumerate(labels):
        for other_x, other_y in labels[:i]:
            assert abs(x - other_x) >= 14 or abs(y - other_y) >= 13
