"""All finished runs side by side, as numbered groups."""

from collections.abc import Mapping, Sequence
from typing import Any

from audiodd_jax.coreset.file import load_coreset
from audiodd_jax.features.metric import ACCURACY
from audiodd_jax.report.evaluation_table import learned_from
from audiodd_jax.report.groups import Group, grouped
from audiodd_jax.report.runs import Run, learner
from audiodd_jax.training.source import coreset_source

# Settings that an evaluation of real clips depends on, apart from the dataset.
_EVALUATED_WITH = ("features", "network", "evaluation")


def compare(runs: Sequence[Run]) -> list[Group]:
    """Groups all finished runs, except those of every fold, and numbers the groups.

    The groups of a dataset are next to each other: coresets, the kernel regressions of
    their evaluations, networks, active learning.

    Raises:
      UserError: a coreset is damaged.
    """
    of_kind = lambda kind: [run for run in runs if run.kind == kind]
    distilled = sorted(grouped(of_kind("distill")), key=_order)
    groups = [
        *distilled,
        *_kernel_regressions(distilled),
        *grouped(of_kind("train"), _by_digest(distilled)),
        *grouped(of_kind("active")),
    ]
    datasets = list(dict.fromkeys(group.first.dataset for group in groups))
    groups.sort(key=lambda group: datasets.index(group.first.dataset))
    return [group._replace(number=i + 1) for i, group in enumerate(groups)]


def _order(group: Group) -> tuple[str, str, int]:
    result = group.first.result
    return group.first.dataset, result["method"], result["samples_per_class"]


def by_dataset(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Returns the groups of each dataset."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.first.dataset, []).append(group)
    return found


def _by_digest(distilled: Sequence[Group]) -> dict[str, Group]:
    """Returns coresets by the digests that trainings on them record."""
    found = {}
    for group in distilled:
        for run in group.runs:
            coreset = load_coreset(run.path / "coreset.npz")
            for name in ("coreset", "hard"):
                source = coreset_source(coreset.unpack(), name, coreset.has_tags)
                found[source.record["digest"]] = group
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
