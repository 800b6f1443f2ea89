"""Geometry of the page's charts: accuracy against bytes, examples or steps.

The page draws them as SVG in its own colours, so that they follow its light and dark
mode. Their size keeps them legible on a phone.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

# In units of the drawing, which is as wide as a phone has pixels.
WIDTH, HEIGHT = 400, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 384, 12, 250
# Size of the number next to a point, and its distance from the point.
_LABEL_SIZE = (14, 13)
_LABEL_DISTANCE = 11
# Directions in which a number may lie from its point, in order of preference.
_DIRECTIONS = ((1, -0.6), (-1, -0.6), (1, 0.8), (-1, 0.8), (0, -1.2), (0, 1.4))

Position = tuple[float, float]


class Series(NamedTuple):
    """A run's points in a chart: pairs of the horizontal value and an accuracy.

    Several points are joined; a single point may have an accuracy that it started from.
    """

    number: int
    name: str
    points: Sequence[tuple[float, float]]
    start: float | None = None


class Tick(NamedTuple):
    """A tick of an axis: its coordinate in the drawing, and its text."""

    at: float
    text: str


class Mark(NamedTuple):
    """A run in the drawing: positions of its points, start and number.

    ``values`` describes the last point in words.
    """

    number: int
    name: str
    values: str
    points: Sequence[Position]
    start: Position | None
    label: Position


class Chart(NamedTuple):
    """A chart, ready to be drawn; ``note`` explains how to read it, or is empty."""

    title: str
    x_label: str
    y_label: str
    note: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    marks: Sequence[Mark]


def chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    *,
    is_log: bool,
    note: str = "",
) -> Chart:
    """Lays out a chart of series that have at least one point each.

    A logarithmic horizontal axis (``is_log``) needs positive values.
    """
    values = [x for run in series for x, _ in run.points]
    low, high = _log_range(values) if is_log else _linear_range(values)
    scale = math.log10 if is_log else float
    unit = (RIGHT - LEFT) / (scale(high) - scale(low))
    heights = [100 * y for run in series for _, y in run.points]
    heights += [100 * run.start for run in series if run.start is not None]
    bottom, top = _percent_range(heights)
    x_at = lambda x: LEFT + unit * (scale(x) - scale(low))
    y_at = lambda y: BOTTOM - (BOTTOM - TOP) * (y - bottom) / (top - bottom)
    marks: list[Mark] = []
    for run in series:
        points = [(x_at(x), y_at(100 * y)) for x, y in run.points]
        start = None
        if run.start is not None:
            start = points[-1][0], y_at(100 * run.start)
        label = _label_position(points[-1], [mark.label for mark in marks])
        x, y = run.points[-1]
        text = f"{100 * y:.1f} % at {x:,.0f} {x_label}"
        marks.append(Mark(run.number, run.name, text, points, start, label))
    x_ticks = log_ticks(low, high) if is_log else linear_ticks(low, high)
    return Chart(
        title,
        x_label,
        y_label,
        note,
        [Tick(x_at(x), short(x)) for x in x_ticks],
        [Tick(y_at(y), f"{y:g}") for y in linear_ticks(bottom, top)],
        marks,
    )


def _linear_range(values: Sequence[float]) -> tuple[float, float]:
    return min(0.0, *values), max(values) or 1.0


def _log_range(values: Sequence[float]) -> tuple[float, float]:
    """Adds a margin around the outer points; a single value lies in the middle."""
    factor = max(1.15, (max(values) / min(values)) ** 0.08)
    factor = 2.0 if max(values) == min(values) else factor
    return min(values) / factor, max(values) * factor


def log_ticks(low: float, high: float) -> list[float]:
    """Returns at most six powers of ten, with 2 and 5 or 3 times them if they fit."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**power for power in powers for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= 6:
            break
    ticks = ticks[:: math.ceil(len(ticks) / 6) or 1]
    # A short axis may lie between two of them.
    return ticks or [low, high]


def linear_ticks(low: float, high: float) -> list[float]:
    """Returns at most six multiples of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(s * power for s in (1, 2, 5, 10) if (high - low) / (s * power) <= 5)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [step * i for i in range(first, last + 1)]


def short(value: float) -> str:
    """Writes a number with few characters: ``200``, ``1.5 k``, ``20 M``."""
    for size, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{prefix}"
    return f"{value:.3g}"


def _percent_range(values: Sequence[float]) -> tuple[float, float]:
    """Returns multiples of ten around percentages, at least twenty points apart."""
    low = 10.0 * math.floor(min(values) / 10 + 1e-9)
    high = 10.0 * math.ceil(max(values) / 10 - 1e-9)
    while high - low < 20:
        low, high = (low - 10, high) if high > 50 else (low, high + 10)
    return low, high


def _label_position(point: Position, taken: Sequence[Position]) -> Position:
    """Returns where to write a point's number without covering another number."""
    for ring in (1, 2, 3):
        for dx, dy in _DIRECTIONS:
            x = point[0] + ring * dx * _LABEL_DISTANCE
            y = point[1] + ring * dy * _LABEL_DISTANCE
            is_inside = LEFT + 6 < x < WIDTH - 8 and TOP < y < BOTTOM - 4
            if is_inside and not any(_overlap((x, y), other) for other in taken):
                return x, y
    return point[0] + _LABEL_DISTANCE, point[1]


def _overlap(label: Position, other: Position) -> bool:
    width, height = _LABEL_SIZE
    return abs(label[0] - other[0]) < width and abs(label[1] - other[1]) < height
