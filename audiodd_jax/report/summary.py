"""Groups of runs as tables: coresets, networks, active learning, unfinished runs."""

import statistics
from collections.abc import Sequence

from audiodd_jax.report import cards, tables
from audiodd_jax.report.groups import Group, metric_of
from audiodd_jax.report.runs import Run
from audiodd_jax.report.tables import Table, mean_std


def coresets(groups: Sequence[Group]) -> Table:
    """Coresets: their sizes, and accuracies of kernel regression."""
    records = []
    for group in groups:
        result, start = group.first.result, ""
        per_class = str(result["samples_per_class"])
        if (factor := result.get("factor", 1)) > 1:
            per_class += f" x {factor}"
        if result["start"] == "real":
            start = mean_std(group.column("start_test_accuracy"))
        record = {
            "dataset": result["dataset"],
            "method": result["method"],
            "per class": per_class,
            "settings": ", ".join(group.settings),
            "share of train": _percent(result["fraction_of_train"]),
            "bytes": f"{result['bytes']:,}",
            "raw audio / bytes": f"{result['train_bytes'] / result['bytes']:.3g}",
            f"{metric_of(groups)} (%)": mean_std(group.accuracies),
            "real clips (%)": start,
            "protocol": result["protocol"],
            "seeds": str(len(group.runs)),
            "steps": str(result["steps"]),
            "s": f"{group.seconds:.0f}",
        }
        records.append(record)
    return tables.from_records(records).without_empty_columns()


def trainings(groups: Sequence[Group]) -> Table:
    """Networks: their training sets and accuracies."""
    records = [
        {
            "dataset": group.dataset,
            "network": group.first.learner,
            "learns from": group.source,
            "settings": ", ".join(group.settings),
            "clips": f"{group.first.examples:,}",
            "share of train": _percent(group.first.result["fraction_of_train"]),
            f"{metric_of(groups)} (%)": mean_std(group.accuracies),
            "macro F1": f"{statistics.fmean(group.column('macro_f1')):.3f}",
            "seeds": str(len(group.accuracies)),
            "s": f"{group.seconds:.0f}",
        }
        for group in groups
    ]
    return tables.from_records(records).without_empty_columns()


def folds(groups: Sequence[Group]) -> Table:
    """Coresets of runs of every fold: accuracies over folds, one row per seed."""
    records = [
        {
            "dataset": run.dataset,
            "method": run.result["method"],
            "per class": str(run.result["samples_per_class"]),
            "settings": ", ".join((*group.settings, f"seed={run.seed}")),
            "folds": str(len(run.accuracies)),
            f"{metric_of(groups)} (%)": mean_std(run.accuracies),
            "real clips (%)": mean_std(
                [row["start_test_accuracy"] for row in run.result["folds"]]
            ),
            "s": f"{run.seconds:.0f}",
        }
        for group in groups
        for run in group.runs
    ]
    return tables.from_records(records)


def unfinished(runs: Sequence[Run]) -> Table:
    """Runs without a result, with their last steps."""
    records = [
        {
            "run": run.path.name,
            "kind": run.kind,
            "dataset": run.config.get("data", {}).get("name", ""),
            "seed": str(run.seed),
            "last step": str(max((row["step"] for row in run.history), default=0)),
        }
        for run in runs
        if not run.result
    ]
    return tables.from_records(records)


def sentence(group: Group) -> str:
    """Describes a coreset in a sentence: relative size, bytes, accuracy."""
    result, count = group.first.result, len(group.runs)
    ratio = result["train_bytes"] / result["bytes"]
    real = tested = ""
    if group.start is not None:
        start = mean_std(group.column("start_test_accuracy"))
        real = f"; the same number of real clips gives {start} %"
    if missing := len(result.get("untested_classes", ())):
        classes = result["num_classes"]
        tested = f" (on {classes - missing} of {classes} classes; the others have no "
        tested += "test clips)"
    warnings = {cards.warning(run.result) for run in group.runs} - {""}
    return (
        f"{group.dataset}, {group.name}: {group.first.examples} spectrograms, "
        f"{_percent(result['fraction_of_train'])} of {result['num_train']:,} clips, "
        f"{group.num_bytes:,} bytes (1/{ratio:.3g} of the raw audio). "
        f"Test {group.first.metric} by {group.first.learner} "
        f"{mean_std(group.accuracies)} % over {count} seed{'s' * (count > 1)}{real}"
        f"{tested}." + " ".join(["", *warnings])
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def spread(values: Sequence[float]) -> str:
    """Returns the mean and range of errors as text."""
    mean = statistics.fmean(values)
    return f"{mean:.3f} ({min(values):.3f} to {max(values):.3f})"
