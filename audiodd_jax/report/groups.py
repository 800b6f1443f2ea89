"""Groups runs that differ only in their seeds, with their mean scores.

Every table, chart and sentence of a report reads these groups.
"""

import dataclasses
import functools
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from audiodd_jax.report import class_scores, learning_curves
from audiodd_jax.report.class_scores import ClassScores
from audiodd_jax.report.learning_curves import Curve
from audiodd_jax.report.runs import Run

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
    "coreset.factor",
    "model.name",
    "active.acquisition",
    "learns_from.name",
    "learns_from.per_class",
    "learns_from.fraction",
    "learns_from.coreset",
)


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
    def title(self) -> str:
        """The training set and the model."""
        return f"{self.name}, by {self.first.learner}"

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
        return class_scores.pooled([row for run in self.runs for row in run.scores])

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
    return [
        _group(members, settings_of[key], settings_of.values(), coresets)
        for key, members in alike.items()
    ]


def _group(
    runs: Sequence[Run],
    settings: dict[str, Any],
    others: Iterable[dict[str, Any]],
    coresets: Mapping[str, Group],
) -> Group:
    """Returns runs as a group, with the settings that differ from similar groups."""
    similar = [other for other in others if _shown(other) == _shown(settings)]
    differing = tuple(
        f"{name}={value}"
        for name, value in sorted(settings.items())
        if any(other.get(name) != value for other in similar)
    )
    # A copy of a run is not another seed.
    once = {(run.seed, _digest(run)): run for run in reversed(runs)}
    runs = sorted(once.values(), key=lambda run: run.seed)
    num_bytes, coreset = runs[0].num_bytes, coresets.get(_digest(runs[0]))
    if coreset and runs[0].result["learns_from"] == "coreset":
        num_bytes = coreset.num_bytes
    return Group(runs, differing, settings.get("learns_from.coreset", ""), num_bytes)


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


def _digest(run: Run) -> str | None:
    """Returns the digest of the coreset that a network was trained on, if any."""
    return run.config.get("learns_from", {}).get("digest")


def _shown(settings: dict[str, Any]) -> list[Any]:
    return [settings.get(name) for name in _SHOWN]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
