"""Geometry of the page's charts: accuracy against bytes, examples or steps.

The page draws them as SVG in its own colours, so that they follow its light and dark
mode; sizes are chosen to be legible on a phone.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

# In units of the drawing, which is as wide as a phone has pixels.
WIDTH, HEIGHT = 400, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 384, 12, 250
# Size of the number beside a point, and its distance.
_NUMBER = (14, 13)
_DISTANCE = 11
# Places of a number around its point, the preferred one first.
_PLACES = ((1, -0.6), (-1, -0.6), (1, 0.8), (-1, 0.8), (0, -1.2), (0, 1.4))


class Series(NamedTuple):
    """What a run has to show in a chart.

    Attributes:
      number: of the run on the page.
      name: of the run.
      points: pairs of the horizontal value and an accuracy; more than one are joined.
      start: accuracy that a single point began with, or None.
    """

    number: int
    name: str
    points: Sequence[tuple[float, float]]
    start: float | None = None


class Tick(NamedTuple):
    """A tick of an axis: its place in the drawing, and its text."""

    at: float
    text: str


class Mark(NamedTuple):
    """A run in the drawing.

    Attributes:
      number: of the run on the page.
      name: of the run.
      told: its values in words.
      points: places in the drawing.
      start: place of the accuracy that it began with, or None.
      label: place of its number.
    """

    number: int
    name: str
    told: str
    points: Sequence[tuple[float, float]]
    start: tuple[float, float] | None
    label: tuple[float, float]


class Chart(NamedTuple):
    """A chart, ready to be drawn.

    Attributes:
      title: what it shows.
      across: name of the horizontal axis.
      up: name of the vertical axis.
      note: how to read it, or empty.
      x_ticks: of the horizontal axis.
      y_ticks: of the vertical axis.
      marks: of the runs.
    """

    title: str
    across: str
    up: str
    note: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    marks: Sequence[Mark]


def chart(
    title: str,
    across: str,
    up: str,
    series: Sequence[Series],
    *,
    is_log: bool,
    note: str = "",
) -> Chart:
    """Lays out a chart.

    Args:
      title: what it shows.
      across: name of the horizontal axis.
      up: name of the vertical axis.
      series: of the runs; each has a point.
      is_log: whether the horizontal axis is logarithmic; its values are positive then.
      note: how to read it.
    """
    values = [x for one in series for x, _ in one.points]
    scale = math.log10 if is_log else float
    if is_log:
        # Room beside the outer points; a single value stands in the middle.
        factor = max(1.15, (max(values) / min(values)) ** 0.08)
        factor = 2.0 if max(values) == min(values) else factor
        low, high = min(values) / factor, max(values) * factor
        ticks = log_ticks(low, high)
    else:
        low, high = min(0.0, *values), max(values) or 1.0
        ticks = linear_ticks(low, high)
    heights = [100 * y for one in series for _, y in one.points]
    heights += [100 * one.start for one in series if one.start is not None]
    bottom, top = _percent_range(heights)
    unit = (RIGHT - LEFT) / (scale(high) - scale(low))
    across_at = lambda x: LEFT + unit * (scale(x) - scale(low))
    up_at = lambda y: BOTTOM - (BOTTOM - TOP) * (y - bottom) / (top - bottom)
    taken: list[tuple[float, float]] = []
    marks = []
    for one in series:
        places = [(across_at(x), up_at(100 * y)) for x, y in one.points]
        start = None
        if one.start is not None:
            start = places[-1][0], up_at(100 * one.start)
        label = _free_place(places[-1], taken)
        taken.append(label)
        x, y = one.points[-1]
        told = f"{100 * y:.1f} % at {x:,.0f} {across}"
        marks.append(Mark(one.number, one.name, told, places, start, label))
    return Chart(
        title,
        across,
        up,
        note,
        [Tick(across_at(x), short(x)) for x in ticks],
        [Tick(up_at(y), f"{y:g}") for y in linear_ticks(bottom, top)],
        marks,
    )


def log_ticks(low: float, high: float) -> list[float]:
    """At most six values of a logarithmic axis: powers of ten, and 2 and 5 or 3 times.

    Args:
      low: its smallest value.
      high: its largest value.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [s * 10.0**p for p in powers for s in steps]
        found = [value for value in found if low <= value <= high]
        if len(found) <= 6:
            break
    found = found[:: math.ceil(len(found) / 6) or 1]
    # A short axis may lie between two of them.
    return found or [low, high]


def linear_ticks(low: float, high: float) -> list[float]:
    """At most six multiples of 1, 2 or 5 times a power of ten.

    Args:
      low: smallest value of the axis.
      high: its largest value.
    """
    power = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(s * power for s in (1, 2, 5, 10) if (high - low) / (s * power) <= 5)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [step * i for i in range(first, last + 1)]


def short(value: float) -> str:
    """A number of few characters: ``200``, ``1.5 k``, ``20 M``."""
    for size, sign in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{sign}"
    return f"{value:.3g}"


def _percent_range(values: Sequence[float]) -> tuple[float, float]:
    """Tens around percentages, at least twenty points apart, between 0 and 100."""
    low = 10.0 * math.floor(min(values) / 10 + 1e-9)
    high = 10.0 * math.ceil(max(values) / 10 - 1e-9)
    while high - low < 20:
        low, high = (low - 10, high) if high > 50 else (low, high + 10)
    return low, high


def _free_place(
    point: tuple[float, float], taken: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """Where to write a point's number, so that no other number is covered."""
    for ring in (1, 2, 3):
        for dx, dy in _PLACES:
            place = point[0] + ring * dx * _DISTANCE, point[1] + ring * dy * _DISTANCE
            is_inside = LEFT + 6 < place[0] < WIDTH - 8 and TOP < place[1] < BOTTOM - 4
            if is_inside and not any(_overlap(place, other) for other in taken):
                return place
    return point[0] + _DISTANCE, point[1]


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return all(
        abs(a - b) < size for a, b, size in zip(one, other, _NUMBER, strict=True)
    )
