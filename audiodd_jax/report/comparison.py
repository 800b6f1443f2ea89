"""All finished runs side by side, as numbered groups."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from audiodd_jax.coreset.file import load_coreset
from audiodd_jax.features.metric import ACCURACY
from audiodd_jax.report.evaluation_table import learned_from
from audiodd_jax.report.groups import Group, by, grouped
from audiodd_jax.report.runs import Run, learner
from audiodd_jax.training.source import coreset_source

# Settings that an evaluation of real clips depends on, apart from the dataset.
_EVALUATED_WITH = ("features", "network", "evaluation")
# Most numbers of confusion matrices on a page: 20 matrices of fifty classes.
_MAX_CELLS = 50_000


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
    by_dataset = by(groups, lambda group: group.dataset)
    ordered = [group for same in by_dataset.values() for group in same]
    return [dataclasses.replace(g, number=i + 1) for i, g in enumerate(ordered)]


def class_tables(groups: Sequence[Group]) -> list[list[Group]]:
    """Returns the groups of each table of scores by class."""
    scored = [group for group in groups if group.classes]
    kind = lambda group: (
        group.dataset,
        group.classes.metric,
        group.classes.class_names,
    )
    return list(by(scored, kind).values())


def matrices(groups: Sequence[Group]) -> list[Group]:
    """Returns groups with confusion matrices, the first ones if they are too many."""
    shown, cells = [], 0
    for group in groups:
        if group.classes and group.classes.counts is not None:
            cells += group.classes.counts.size
            if shown and cells > _MAX_CELLS:
                break
            shown.append(group)
    return shown


def _order(group: Group) -> tuple[str, str, int]:
    result = group.first.result
    return group.dataset, result["method"], result["samples_per_class"]


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
