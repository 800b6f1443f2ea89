"""Groups of runs that differ only in their seeds, which all of a report reads."""

import dataclasses
import functools
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from audiodd_jax.coreset.file import load_coreset
from audiodd_jax.features.metric import score_of
from audiodd_jax.report import learning_curves
from audiodd_jax.report.learning_curves import Curve
from audiodd_jax.report.runs import ClassScores, Run, pooled
from audiodd_jax.training.source import coreset_source

# Settings that differ between the seeds of one experiment, or between machines.
_PER_SEED = ("seed", "learns_from.draw", "data.data_dir", "data.processes")
# Indices of clips, which differ between seeds.
_INDICES = "learns_from.indices"
# Settings that have their own columns in the tables.
_SHOWN = (
    "method",
    "data.name",
    "data.variant",
    "coreset.samples_per_class",
    "coreset.samples",
    "coreset.factor",
    "model.name",
    "active.acquisition",
    "learns_from.name",
    "learns_from.per_class",
    "learns_from.fraction",
    "learns_from.coreset",
)
# Settings that an evaluation of real clips depends on, apart from the dataset.
_EVALUATED_WITH = ("features", "network", "evaluation")
# Most numbers of confusion matrices on a page: 20 matrices of fifty classes.
_MAX_CELLS = 50_000


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ only in their seeds.

    Attributes:
      runs: sorted by seed.
      settings: ``name=value`` for each setting that sets it apart from similar groups.
      coreset: name of the coreset that networks were trained on, or empty.
      num_bytes: size of the training set; None if unknown.
      number: on the page, from 1; 0 until the group is numbered.
    """

    runs: Sequence[Run]
    settings: tuple[str, ...] = ()
    coreset: str = ""
    num_bytes: int | None = None
    number: int = 0

    @property
    def first(self) -> Run:
        """The run of the first seed."""
        return self.runs[0]

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self.first.dataset

    @property
    def source(self) -> str:
        """The training set: ``coreset of rfad, 10 per class``."""
        source = self.first.learns_from
        return f"{source} of {self.coreset}" if self.coreset else source

    @property
    def name(self) -> str:
        """The training set, with the settings that set it apart."""
        return ", ".join([self.source, *self.settings])

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Accuracies of all seeds."""
        return tuple(a for run in self.runs for a in run.accuracies)

    @property
    def mean(self) -> float:
        """Mean accuracy over seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def start(self) -> float | None:
        """Mean accuracy on the real clips that a distillation started from."""
        if self.first.start is None:
            return None
        return statistics.fmean(run.start for run in self.runs)

    @property
    def seconds(self) -> float:
        """Mean duration of a run."""
        return statistics.fmean(run.seconds for run in self.runs)

    @property
    def curve(self) -> Curve | None:
        """The learning curve of active learning; None for other runs."""
        if self.first.kind != "active":
            return None
        name = ", ".join([self.first.result["acquisition"], *self.settings])
        return learning_curves.curve(name, [run.result for run in self.runs])

    @property
    def validated(self) -> list[tuple[int, float]]:
        """Steps and mean validation accuracies of a distillation, if more than one."""
        if self.first.kind != "distill":
            return []
        at: dict[int, list[float]] = {}
        for run in self.runs:
            for row in run.history:
                if "validation_accuracy" in row:
                    at.setdefault(row["step"], []).append(row["validation_accuracy"])
        points = [(step, statistics.fmean(at[step])) for step in sorted(at)]
        return points if len(points) > 1 else []

    @functools.cached_property
    def classes(self) -> ClassScores | None:
        """Scores by class or tag; None if unknown."""
        return pooled([row for run in self.runs for row in run.scores])

    def scores(self, of_accuracy: str) -> list[float]:
        """Returns each run's score, as ``score_of``."""
        return [score_of(run.result, of_accuracy) for run in self.runs]

    def column(self, name: str) -> list[Any]:
        """Returns a value of each run's ``result.json``."""
        return [run.result[name] for run in self.runs]


def by(groups: Iterable[Group], key: Callable[[Group], Any]) -> dict[Any, list[Group]]:
    """Returns the groups of each key, in order."""
    found: dict[Any, list[Group]] = {}
    for group in groups:
        found.setdefault(key(group), []).append(group)
    return found


def metric_of(groups: Sequence[Group]) -> str:
    """Returns what the accuracies of these groups are, in words."""
    return " or ".join(dict.fromkeys(group.first.metric for group in groups))


def compare(runs: Sequence[Run]) -> list[Group]:
    """Groups all finished runs, except those of every fold, and numbers the groups.

    The groups of a dataset are next to each other: coresets, the kernel regressions of
    their evaluations, networks, active learning.

    Raises:
      UserError: a coreset is damaged.
    """
    of_kind = lambda kind: [run for run in runs if run.kind == kind]
    order = lambda group: (
        group.dataset,
        group.first.result["method"],
        group.first.result["samples_per_class"],
    )
    distilled = sorted(grouped(of_kind("distill")), key=order)
    groups = [
        *distilled,
        *_kernel_regressions(distilled),
        *grouped(of_kind("train"), _by_digest(distilled)),
        *grouped(of_kind("active")),
    ]
    by_dataset = by(groups, attrgetter("dataset"))
    ordered = [group for same in by_dataset.values() for group in same]
    return [dataclasses.replace(g, number=i + 1) for i, g in enumerate(ordered)]


def _kernel_regressions(distilled: Sequence[Group]) -> list[Group]:
    """Groups kernel regressions of evaluations, other than a coreset's own protocol.

    Evaluations of several coresets share rows of real clips: each seed counts once.
    """
    seeds_of: dict[tuple, dict[int, Run]] = {}
    for group in distilled:
        for run in group.runs:
            for regression in run.evaluation:
                source = regression.result["learns_from"]
                if source == "coreset":
                    regression = regression._replace(learns_from=group.name)
                settings = [run.config.get(part) for part in _EVALUATED_WITH]
                # Hard labels belong to one coreset, unlike real clips.
                owned = source in ("coreset", "hard")
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


def grouped(
    runs: Sequence[Run], coresets: Mapping[str, Group] | None = None
) -> list[Group]:
    """Groups finished runs of one kind that differ only in seeds and paths.

    ``coresets`` are those that networks were trained on, by digest.
    """
    coresets = coresets or {}
    alike: dict[str, list[Run]] = {}
    settings_of: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run.result:
            settings = _settings(run, coresets)
            key = json.dumps(settings, sort_keys=True)
            alike.setdefault(key, []).append(run)
            settings_of[key] = settings
    shown = lambda settings: [settings.get(name) for name in _SHOWN]
    groups = []
    for key, members in alike.items():
        settings = settings_of[key]
        similar = [s for s in settings_of.values() if shown(s) == shown(settings)]
        differing = tuple(
            f"{name}={value}"
            for name, value in sorted(settings.items())
            if any(other.get(name) != value for other in similar)
        )
        # A copy of a run is not another seed.
        once = {(run.seed, run.digest): run for run in reversed(members)}
        seeds = sorted(once.values(), key=lambda run: run.seed)
        num_bytes, coreset = seeds[0].num_bytes, coresets.get(seeds[0].digest)
        if coreset and seeds[0].result["learns_from"] == "coreset":
            num_bytes = coreset.num_bytes
        name = settings.get("learns_from.coreset", "")
        groups.append(Group(seeds, differing, name, num_bytes))
    return groups


def _settings(run: Run, coresets: Mapping[str, Group]) -> dict[str, Any]:
    """Returns the flat settings of a run, without those of a seed or a machine."""
    settings = _flat(run.config)
    # The path identifies a folder's dataset, but not a published one.
    kept = ("data.data_dir",) if settings.get("data.name") == "folder" else ()
    for name in _PER_SEED:
        if name not in kept:
            settings.pop(name, None)
    if settings.get(_INDICES):
        settings[_INDICES] = "given"
    if digest := settings.pop("learns_from.digest", None):
        coreset = coresets.get(digest)
        settings["learns_from.coreset"] = coreset.name if coreset else digest
    return settings


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def class_tables(groups: Sequence[Group]) -> list[list[Group]]:
    """Returns the groups of each table of scores by class."""
    scored = [group for group in groups if group.classes]
    kind = attrgetter("dataset", "classes.metric", "classes.class_names")
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
