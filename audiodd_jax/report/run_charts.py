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
    title, test = f"{groups[0].first.dataset}: {metric}", f"test {metric} (%)"
    by_labels = [_series(group, _labels(group)) for group in groups]
    by_bytes = [
        _series(group, [(group.num_bytes, group.mean)], group.start)
        for group in groups
        if group.num_bytes
    ]
    by_steps = [_series(group, group.validated) for group in groups if group.validated]
    found = []
    if by_bytes:
        has_start = any(series.start is not None for series in by_bytes)
        found.append(
            charts.chart(
                f"{title} against bytes",
                "bytes",
                test,
                by_bytes,
                is_log=True,
                note=_START.format(metric) if has_start else "",
            )
        )
    found.append(
        charts.chart(
            f"{title} against labels",
            "labelled examples",
            test,
            by_labels,
            is_log=True,
            note=_EXAMPLES if by_bytes else "",
        )
    )
    if by_steps:
        validation = f"validation {metric} (%)"
        during = f"{title} during distillation"
        found.append(charts.chart(during, "steps", validation, by_steps, is_log=False))
    return found


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
