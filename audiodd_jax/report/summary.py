"""Results of runs as tables: coresets, trainings, active learning, unfinished runs."""

import statistics
from collections.abc import Sequence
from typing import Any

from audiodd_jax.report import cards, evaluation_table, learning_curves
from audiodd_jax.report.learning_curves import Curve
from audiodd_jax.report.run_index import Group, Run
from audiodd_jax.report.tables import Table, mean_std, metric_of

_LEARNERS = {
    "krr": "kernel regression",
    "nngp": "kernel regression, exact NNGP kernel",
    "ntk": "kernel regression, exact NTK kernel",
}


def learner(protocol: str) -> str:
    """A protocol in words; a network has its name."""
    return _LEARNERS.get(protocol, protocol)


def name_of(group: Group) -> str:
    """A coreset's method and size: ``rfad, 10 per class``."""
    result = group.first.result
    factor = result.get("factor", 1)
    return ", ".join(
        [
            result["method"],
            f"{result['samples_per_class']} per class",
            *([f"factor {factor}"] if factor > 1 else []),
            *group.settings,
        ]
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def accuracies(group: Group) -> list[float]:
    """Accuracies of all seeds of all trainings."""
    return [a for run in group.runs for a in run.result["test_accuracies"]]


def learnt_from(group: Group) -> str:
    """What a training learns from: ``coreset of rfad, 10 per class``."""
    what = evaluation_table.learned_from(group.first.result["learns_from"])
    return f"{what} of {group.origin}" if group.origin else what


def _metric(groups: Sequence[Group]) -> str:
    return metric_of(run.result for group in groups for run in group.runs)


def coresets(groups: Sequence[Group]) -> Table:
    """Coresets: their sizes, and accuracies of kernel regression.

    Args:
      groups: of distillations.
    """
    columns = (
        "dataset",
        "method",
        "per class",
        "settings",
        "of train",
        "bytes",
        "raw audio / bytes",
        f"{_metric(groups)} (%)",
        "real clips (%)",
        "protocol",
        "seeds",
        "steps",
        "s",
    )
    rows = []
    for group in groups:
        result = group.first.result
        factor = result.get("factor", 1)
        rows.append(
            (
                result["dataset"],
                result["method"],
                f"{result['samples_per_class']}" + (f" x {factor}" * (factor > 1)),
                ", ".join(group.settings),
                _percent(result["fraction_of_train"]),
                f"{result['bytes']:,}",
                f"{result['train_bytes'] / result['bytes']:.3g}",
                mean_std(group.column("test_accuracy")),
                mean_std(group.column("start_test_accuracy"))
                if result["start"] == "real"
                else "",
                result["protocol"],
                str(len(group.runs)),
                str(result["steps"]),
                f"{group.mean('wall_seconds'):.0f}",
            )
        )
    return Table(columns, rows).without_empty_columns()


def trainings(groups: Sequence[Group]) -> Table:
    """Networks and their training sets, with accuracies.

    Args:
      groups: of trainings.
    """
    columns = (
        "dataset",
        "network",
        "learns from",
        "settings",
        "clips",
        "of train",
        f"{_metric(groups)} (%)",
        "macro F1",
        "seeds",
        "s",
    )
    rows = []
    for group in groups:
        result = group.first.result
        scores = accuracies(group)
        rows.append(
            (
                result["dataset"],
                result["model"],
                learnt_from(group),
                ", ".join(group.settings),
                f"{result['num_samples']:,}",
                _percent(result["fraction_of_train"]),
                mean_std(scores),
                f"{group.mean('macro_f1'):.3f}",
                str(len(scores)),
                f"{group.mean('wall_seconds'):.0f}",
            )
        )
    return Table(columns, rows).without_empty_columns()


def folds(groups: Sequence[Group]) -> Table:
    """Coresets of runs of every fold, with accuracies over folds."""
    columns = (
        "dataset",
        "method",
        "per class",
        "settings",
        "folds",
        f"{_metric(groups)} (%)",
        "real clips (%)",
        "s",
    )
    rows = []
    for group in groups:
        for run in group.runs:
            result, each = run.result, run.result["folds"]
            rows.append(
                (
                    result["dataset"],
                    result["method"],
                    str(result["samples_per_class"]),
                    ", ".join((*group.settings, f"seed={run.seed}")),
                    str(len(each)),
                    mean_std([row["test_accuracy"] for row in each]),
                    mean_std([row["start_test_accuracy"] for row in each]),
                    f"{result['wall_seconds']:.0f}",
                )
            )
    return Table(columns, rows)


def curve(group: Group) -> Curve:
    """The learning curve of an acquisition function, over its seeds."""
    name = ", ".join([group.first.result["acquisition"], *group.settings])
    return learning_curves.curve(name, [run.result for run in group.runs])


def unfinished(runs: Sequence[Run]) -> Table:
    """Runs without a result, and their last steps."""
    rows = []
    for run in runs:
        if not run.result:
            step = max((row["step"] for row in run.history), default=0)
            name = run.config.get("data", {}).get("name", "")
            rows.append((run.path.name, run.kind, name, str(run.seed), str(step)))
    return Table(("run", "kind", "dataset", "seed", "last step"), rows)


def sentence(group: Group) -> str:
    """A coreset in a sentence: relative size, bytes, accuracy."""
    result = group.first.result
    share = _percent(result["fraction_of_train"])
    less = result["train_bytes"] / result["bytes"]
    real = ""
    if result["start"] == "real" and result["steps"]:
        start = mean_std(group.column("start_test_accuracy"))
        real = f"; the same number of real clips gives {start} %"
    count = len(group.runs)
    return (
        f"{result['dataset']}, {name_of(group)}: {result['num_samples']} spectrograms, "
        f"{share} of {result['num_train']:,} clips, {result['bytes']:,} bytes "
        f"(1/{less:.3g} of the raw audio). Test {_metric([group])} by "
        f"{learner(result['protocol'])} "
        f"{mean_std(group.column('test_accuracy'))} % over {count} "
        f"seed{'s' * (count > 1)}{real}{_tested(result)}."
        + " ".join(["", *{cards.warning(run.result) for run in group.runs} - {""}])
    )


def _tested(result: dict[str, Any]) -> str:
    """Of how many classes an accuracy is, if some cannot be tested."""
    missing, classes = (
        len(result.get("untested_classes", ())),
        result.get("num_classes"),
    )
    if not missing:
        return ""
    return (
        f" (of {classes - missing} of {classes} classes; the others have no test clips)"
    )


def spread(values: Sequence[float]) -> str:
    """Mean and range of errors."""
    mean = statistics.fmean(values)
    return f"{mean:.3f} ({min(values):.3f} to {max(values):.3f})"
