"""All finished runs side by side, as numbered groups."""

from collections.abc import Mapping, Sequence
from typing import Any

from audiodd_jax.features.metric import ACCURACY
from audiodd_jax.report.evaluation_table import learned_from
from audiodd_jax.report.groups import Group
from audiodd_jax.report.runs import Run, learner

# Settings that an evaluation of real clips depends on, apart from the dataset.
_EVALUATED_WITH = ("features", "network", "evaluation")


def compare(
    distilled: Sequence[Group], trained: Sequence[Group], chosen: Sequence[Group]
) -> list[Group]:
    """Returns all groups, numbered, with those of one dataset next to each other.

    Args:
      distilled: distillations and choices of clips, to which the kernel regressions of
        their evaluations are added.
      trained: trainings of networks.
      chosen: active learning.
    """
    groups = [*distilled, *_kernel_regressions(distilled), *trained, *chosen]
    datasets = list(dict.fromkeys(group.first.dataset for group in groups))
    groups.sort(key=lambda group: datasets.index(group.first.dataset))
    return [group._replace(number=i + 1) for i, group in enumerate(groups)]


def by_dataset(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Returns the groups of each dataset."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.first.dataset, []).append(group)
    return found


def _kernel_regressions(distilled: Sequence[Group]) -> list[Group]:
    """Groups kernel regressions of evaluations, other than a coreset's own protocol.

    Evaluations of several coresets share rows of real clips: each seed counts once.
    """
    seeds_of: dict[tuple, dict[int, Run]] = {}
    for group in distilled:
        for run in group.runs:
            for row in run.evaluation:
                regression = _regression(run, row, group)
                settings = [run.config.get(part) for part in _EVALUATED_WITH]
                # Hard labels belong to one coreset, unlike real clips.
                owned = row["learns_from"] in ("coreset", "hard")
                key = (
                    regression.dataset,
                    run.result.get("fold"),
                    regression.learns_from,
                    regression.learner,
                    regression.examples,
                    str(owned and group.first.path),
                    repr(settings),
                )
                seeds_of.setdefault(key, {}).setdefault(run.seed, regression)
    groups = [list(seeds.values()) for seeds in seeds_of.values()]
    return [Group(members, num_bytes=members[0].num_bytes) for members in groups]


def _regression(run: Run, row: Mapping[str, Any], group: Group) -> Run:
    """A row of a run's evaluation, as a run of its own."""
    is_coreset = row["learns_from"] == "coreset"
    return run._replace(
        kind="kernel",
        history=(),
        result=row,
        learns_from=group.name if is_coreset else learned_from(row["learns_from"]),
        learner=learner(row["protocol"]),
        examples=row["num_samples"],
        num_bytes=run.num_bytes if is_coreset else None,
        accuracies=tuple(row["test_accuracies"]),
        start=None,
        seconds=row["seconds"],
        metric=row.get("measure", ACCURACY),
        scores=[row],
        evaluation=(),
    )
