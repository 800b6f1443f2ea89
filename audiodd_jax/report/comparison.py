"""All finished runs side by side: what was learnt from, bytes, accuracy, seconds."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from audiodd_jax.config import presets
from audiodd_jax.errors import UserError
from audiodd_jax.features.metric import ACCURACY
from audiodd_jax.report import class_scores, summary
from audiodd_jax.report.class_scores import ClassScores, TagPrecisions
from audiodd_jax.report.evaluation_table import learned_from
from audiodd_jax.report.run_index import Group, Run
from audiodd_jax.report.tables import metric_of
from audiodd_jax.runtime.files import DAMAGE, read_json

# What an evaluation of real clips depends on, beside the dataset.
_EVALUATED_WITH = ("features", "network", "evaluation")


class Compared(NamedTuple):
    """A line of the comparison.

    Attributes:
      number: on the page, from 1; 0 before it is numbered.
      dataset: its name.
      name: what was learnt from: ``rfad, 1 per class``, ``real clips, random``.
      learner: what learnt from it: ``kernel regression``, ``convnet``.
      examples: spectrograms or clips that were learnt from.
      num_bytes: of these examples; None if unknown.
      accuracies: on the test split, one per seed.
      start: mean accuracy on the real clips that a distillation started from.
      seconds: to distil, to train, or for all rounds of active learning.
      curve: examples and mean accuracy of each round of active learning.
      validated: steps and mean validation accuracy of a distillation.
      classes: scores by class, if known.
      metric: what the accuracies are, in words.
    """

    number: int
    dataset: str
    name: str
    learner: str
    examples: int
    num_bytes: int | None
    accuracies: tuple[float, ...]
    start: float | None
    seconds: float
    curve: tuple[tuple[int, float], ...] = ()
    validated: tuple[tuple[int, float], ...] = ()
    classes: ClassScores | TagPrecisions | None = None
    metric: str = ACCURACY

    @property
    def mean(self) -> float:
        """Mean accuracy over seeds."""
        return statistics.fmean(self.accuracies)


def compare(
    distilled: Sequence[Group], trained: Sequence[Group], chosen: Sequence[Group]
) -> list[Compared]:
    """The lines of the comparison, numbered, those of a dataset together.

    Args:
      distilled: groups of distillations and of choices of clips.
      trained: groups of trainings.
      chosen: groups of active learning.

    Raises:
      UserError: a run's ``evaluation.json`` is damaged.
    """
    sizes = {
        (group.first.result["dataset"], summary.name_of(group)): group.first.result[
            "bytes"
        ]
        for group in distilled
    }
    evaluations = {run.path: _evaluation(run) for g in distilled for run in g.runs}
    found = [_coreset(group, evaluations) for group in distilled]
    found += _by_kernels(distilled, evaluations)
    found += [_training(group, sizes) for group in trained]
    found += [_active(group) for group in chosen]
    datasets = list(dict.fromkeys(line.dataset for line in found))
    found.sort(key=lambda line: datasets.index(line.dataset))
    return [line._replace(number=i + 1) for i, line in enumerate(found)]


def by_dataset(lines: Sequence[Compared]) -> dict[str, list[Compared]]:
    """The lines of each dataset."""
    found: dict[str, list[Compared]] = {}
    for line in lines:
        found.setdefault(line.dataset, []).append(line)
    return found


def _evaluation(run: Run) -> list[dict[str, Any]]:
    """The rows of a run's evaluation; empty if it was not evaluated.

    Raises:
      UserError: the file is damaged.
    """
    path = run.path / "evaluation" / "evaluation.json"
    if not path.exists():
        return []
    rows = read_json(path)
    try:
        for row in rows:
            row["protocol"], row["learns_from"], row["seconds"], row["num_samples"]
            [float(accuracy) for accuracy in row["test_accuracies"]]
            class_scores.pooled([row])
    except (*DAMAGE, AttributeError, UserError) as error:
        raise UserError(f"{path} is damaged: it is not an evaluation") from error
    return rows


def _coreset(
    group: Group, evaluations: Mapping[Any, Sequence[dict[str, Any]]]
) -> Compared:
    """A coreset, by the scores of its own run, and classes by its evaluation."""
    result = group.first.result
    rows = [
        row
        for run in group.runs
        for row in evaluations[run.path]
        if _is_scored(row, result)
    ]
    is_started = result["start"] == "real" and result["steps"]
    return Compared(
        0,
        result["dataset"],
        summary.name_of(group),
        summary.learner(result["protocol"]),
        result["num_samples"],
        result["bytes"],
        tuple(group.column("test_accuracy")),
        group.mean("start_test_accuracy") if is_started else None,
        group.mean("wall_seconds"),
        validated=_validated(group),
        classes=class_scores.pooled(rows),
        metric=metric_of([result]),
    )


def _is_scored(row: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    """Whether a row scores the coreset as its own run did."""
    return row["learns_from"] == "coreset" and row["protocol"] == result["protocol"]


def _validated(group: Group) -> tuple[tuple[int, float], ...]:
    """Steps and validation accuracies, means over seeds; empty for fewer than two."""
    at: dict[int, list[float]] = {}
    for run in group.runs:
        for row in run.history:
            if "validation_accuracy" in row:
                at.setdefault(row["step"], []).append(row["validation_accuracy"])
    points = tuple((step, statistics.fmean(at[step])) for step in sorted(at))
    return points if len(points) > 1 else ()


def _by_kernels(
    distilled: Sequence[Group], evaluations: Mapping[Any, Sequence[dict[str, Any]]]
) -> list[Compared]:
    """What kernel regression learns from, beside the coresets as their runs score them.

    Networks' trainings are runs of their own. Evaluations of several coresets have rows
    of the same real clips: each seed counts once.
    """
    found: dict[tuple, dict[int, dict[str, Any]]] = {}
    for group in distilled:
        for run in group.runs:
            for row in evaluations[run.path]:
                if presets.is_network(row["protocol"]) or _is_scored(row, run.result):
                    continue
                name = learned_from(row["learns_from"])
                num_bytes = None
                if row["learns_from"] == "coreset":
                    name = summary.name_of(group)
                    num_bytes = run.result["bytes"]
                settings = [run.config.get(part) for part in _EVALUATED_WITH]
                # A hard label of one coreset is not that of another.
                own = row["learns_from"] in ("coreset", "hard") and group.runs[0].path
                key = (
                    *(run.result["dataset"], run.result.get("fold"), name),
                    *(row["protocol"], row["num_samples"], num_bytes),
                    *(str(own), repr(settings)),
                )
                found.setdefault(key, {}).setdefault(run.seed, row)
    lines = []
    for (dataset, _, name, protocol, examples, size, *_), seeds in found.items():
        rows = list(seeds.values())
        lines.append(
            Compared(
                *(0, dataset, name, summary.learner(protocol), examples, size),
                tuple(a for row in rows for a in row["test_accuracies"]),
                None,
                statistics.fmean(row["seconds"] for row in rows),
                classes=class_scores.pooled(rows),
                metric=metric_of(rows),
            )
        )
    return lines


def _training(group: Group, sizes: Mapping[tuple[str, str], int]) -> Compared:
    """A network, on a coreset or on real clips."""
    result = group.first.result
    is_coreset = result["learns_from"] == "coreset"
    return Compared(
        0,
        result["dataset"],
        ", ".join([summary.learnt_from(group), *group.settings]),
        result["model"],
        result["num_samples"],
        sizes.get((result["dataset"], group.origin)) if is_coreset else None,
        tuple(summary.accuracies(group)),
        None,
        group.mean("wall_seconds"),
        classes=class_scores.pooled([run.result for run in group.runs]),
        metric=metric_of([result]),
    )


def _active(group: Group) -> Compared:
    """A network on labels that an acquisition function chose."""
    result, curve = group.first.result, summary.curve(group)
    means = curve.accuracies.mean(0).tolist()
    return Compared(
        0,
        result["dataset"],
        f"labels chosen by {curve.name}",
        result["model"],
        curve.counts[-1],
        None,
        tuple(curve.accuracies[:, -1].tolist()),
        None,
        curve.seconds,
        curve=tuple(zip(curve.counts, means, strict=True)),
        metric=metric_of([result]),
    )
