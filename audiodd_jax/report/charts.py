"""The page's charts: accuracy against bytes, examples or steps.

The page draws them as SVG in its own colours, so that they follow its light and dark
mode. Their size keeps them legible on a phone.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from audiodd_jax.report.groups import Group, metric_of

# In units of the drawing, which is as wide as a phone has pixels.
WIDTH, HEIGHT = 400, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 384, 12, 250
# Size of the number next to a point, and its distance from the point.
_LABEL_WIDTH, _LABEL_HEIGHT = 14, 13
_LABEL_DISTANCE = 11
# Directions in which a number may lie from its point, in order of preference.
_DIRECTIONS = ((1, -0.6), (-1, -0.6), (1, 0.8), (-1, 0.8), (0, -1.2), (0, 1.4))
_START = "Hollow points: {} on the real clips that a distillation started from."
_EXAMPLES = (
    "Coresets are placed at their number of spectrograms. Distilling them also used "
    "the labels of all training clips, unless a run was restricted to fewer."
)

Position = tuple[float, float]


class Series(NamedTuple):
    """A run's points in a chart: pairs of the horizontal value and an accuracy.

    Several points are joined; a single point may have an accuracy that it started from.
    """

    number: int
    name: str
    points: Sequence[tuple[float, float]]
    start: float | None = None


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
    """A chart in the drawing's coordinates; ``note`` says how to read it, if at all."""

    title: str
    x_label: str
    y_label: str
    note: str
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    marks: Sequence[Mark]


def draw(groups: Sequence[Group]) -> list[Chart]:
    """Returns the charts of a dataset's groups, without those of a single point."""
    by_bytes, by_labels, by_steps = [], [], []
    for group in groups:
        series = Series(group.number, f"{group.name}, {group.first.learner}", ())
        labels = [(group.first.examples, group.mean)]
        if curve := group.curve:
            means = curve.accuracies.mean(0).tolist()
            labels = list(zip(curve.counts, means, strict=True))
        by_labels.append(series._replace(points=labels))
        if group.num_bytes:
            points = [(group.num_bytes, group.mean)]
            by_bytes.append(series._replace(points=points, start=group.start))
        if group.validated:
            by_steps.append(series._replace(points=group.validated))
    metric = metric_of(groups)
    has_start = any(series.start is not None for series in by_bytes)
    start = _START.format(metric) if has_start else ""
    examples = _EXAMPLES if by_bytes else ""
    test, validation = f"test {metric} (%)", f"validation {metric} (%)"
    made = [
        ("against bytes", "bytes", test, by_bytes, start),
        ("against labels", "labelled examples", test, by_labels, examples),
        ("during distillation", "steps", validation, by_steps, ""),
    ]
    return [
        chart(f"{groups[0].dataset}: {metric} {name}", x_label, y_label, series, note)
        for name, x_label, y_label, series, note in made
        if sum(len(run.points) for run in series) > 1
    ]


def chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    note: str = "",
) -> Chart:
    """Lays out a chart of series that have at least one point each.

    The horizontal axis is logarithmic except for steps, which begin at 0.
    """
    is_log = x_label != "steps"
    values = [float(x) for run in series for x, _ in run.points]
    low, high = min(0.0, *values), max(values) or 1.0
    if is_log:
        # A margin around the outer points; a single value lies in the middle.
        ratio = max(values) / min(values)
        factor = 2.0 if ratio == 1 else max(1.15, ratio**0.08)
        low, high = min(values) / factor, max(values) * factor
    scale = math.log10 if is_log else float
    unit = (RIGHT - LEFT) / (scale(high) - scale(low))
    heights = [100 * y for run in series for _, y in run.points]
    heights += [100 * run.start for run in series if run.start is not None]
    # Multiples of ten, at least twenty points apart.
    bottom = 10.0 * math.floor(min(heights) / 10 + 1e-9)
    top = 10.0 * math.ceil(max(heights) / 10 - 1e-9)
    while top - bottom < 20:
        bottom, top = (bottom - 10, top) if top > 50 else (bottom, top + 10)
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
        [(x_at(x), short(x)) for x in x_ticks],
        [(y_at(y), f"{y:g}") for y in linear_ticks(bottom, top)],
        marks,
    )


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


def _label_position(point: Position, taken: Sequence[Position]) -> Position:
    """Returns where to write a point's number without covering another number."""
    for ring in (1, 2, 3):
        for dx, dy in _DIRECTIONS:
            x = point[0] + ring * dx * _LABEL_DISTANCE
            y = point[1] + ring * dy * _LABEL_DISTANCE
            is_inside = LEFT + 6 < x < WIDTH - 8 and TOP < y < BOTTOM - 4
            is_free = all(
                abs(x - other_x) >= _LABEL_WIDTH or abs(y - other_y) >= _LABEL_HEIGHT
                for other_x, other_y in taken
            )
            if is_inside and is_free:
                return x, y
    return point[0] + _LABEL_DISTANCE, point[1]
