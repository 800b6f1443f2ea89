"""The charts of a dataset's groups: accuracy against bytes, examples and steps."""

from collections.abc import Sequence

from audiodd_jax.report import charts
from audiodd_jax.report.charts import Chart, Series
from audiodd_jax.report.groups import Group, metric_of

_START = "Hollow points: {} on the real clips that a distillation started from."
_EXAMPLES = (
    "Coresets are placed at their number of spectrograms. Distilling them also used "
    "the labels of all training clips, unless a run was restricted to fewer."
)


def draw(groups: Sequence[Group]) -> list[Chart]:
    """Returns a dataset's charts, without those that have no points."""
    if not groups:
        return []
    metric = metric_of(groups)
    test = f"test {metric} (%)"
    by_labels = [_series(group, _labels(group)) for group in groups]
    by_bytes = [
        _series(group, [(group.num_bytes, group.mean)], group.start)
        for group in groups
        if group.num_bytes
    ]
    by_steps = [_series(group, group.validated) for group in groups if group.validated]
    has_start = any(series.start is not None for series in by_bytes)
    start = _START.format(metric) if has_start else ""
    examples = _EXAMPLES if by_bytes else ""
    made = [
        ("against bytes", "bytes", test, by_bytes, start),
        ("against labels", "labelled examples", test, by_labels, examples),
        ("during distillation", "steps", f"validation {metric} (%)", by_steps, ""),
    ]
    return [
        charts.chart(
            f"{groups[0].dataset}: {metric} {subject}",
            x_label,
            y_label,
            series,
            is_log=x_label != "steps",
            note=note,
        )
        for subject, x_label, y_label, series, note in made
        if series
    ]


def _labels(group: Group) -> Sequence[tuple[int, float]]:
    """Returns labelled examples and accuracies: a curve, or a single point."""
    if group.curve is None:
        return [(group.first.examples, group.mean)]
    means = group.curve.accuracies.mean(0).tolist()
    return list(zip(group.curve.counts, means, strict=True))


def _series(
    group: Group, points: Sequence[tuple[int, float]], start: float | None = None
) -> Series:
    points = [(float(x), y) for x, y in points]
    return Series(group.number, f"{group.name}, {group.first.learner}", points, start)
