"""The charts of a comparison: accuracy against bytes, examples and steps."""

from collections.abc import Sequence

from audiodd_jax.report import charts
from audiodd_jax.report.charts import Chart, Series
from audiodd_jax.report.comparison import Compared

_START = "A hollow point is the {} of the real clips that a distillation began with."
_EXAMPLES = (
    "A coreset stands at its number of spectrograms. Distilling it read the labels of "
    "training clips too: of all of them, unless a run was given fewer."
)


def draw(dataset: str, lines: Sequence[Compared]) -> list[Chart]:
    """The charts of a dataset that have something to show.

    Args:
      dataset: its name.
      lines: its lines of the comparison.
    """
    metric = " or ".join(dict.fromkeys(line.metric for line in lines))
    test = f"test {metric} (%)"
    by_bytes = [
        _series(line, [(line.num_bytes, line.mean)], line.start)
        for line in lines
        if line.num_bytes
    ]
    by_examples = [
        _series(line, line.curve or [(line.examples, line.mean)]) for line in lines
    ]
    by_steps = [_series(line, line.validated) for line in lines if line.validated]
    has_start = any(one.start is not None for one in by_bytes)
    found = []
    if by_bytes:
        note = _START.format(metric) if has_start else ""
        title = f"{dataset}: {metric} against bytes"
        found.append(
            charts.chart(title, "bytes", test, by_bytes, is_log=True, note=note)
        )
    if by_examples:
        title, across = f"{dataset}: {metric} against labels", "labelled examples"
        note = _EXAMPLES if by_bytes else ""
        found.append(
            charts.chart(title, across, test, by_examples, is_log=True, note=note)
        )
    if by_steps:
        title, up = (
            f"{dataset}: {metric} during distillation",
            f"validation {metric} (%)",
        )
        found.append(charts.chart(title, "steps", up, by_steps, is_log=False))
    return found


def _series(
    line: Compared,
    points: Sequence[tuple[int, float]],
    start: float | None = None,
) -> Series:
    """A line's points, as a series of a chart."""
    points = [(float(x), y) for x, y in points]
    return Series(line.number, f"{line.name}, {line.learner}", points, start)
