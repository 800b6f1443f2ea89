"""Finds runs in folders, and groups the seeds of each experiment."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from audiodd_jax.errors import UserError
from audiodd_jax.runtime.files import read_json, read_rows

# Settings that differ between seeds of one experiment, or between machines.
_OF_A_SEED = ("seed", "learns_from.draw", "data.data_dir", "data.processes")
# Indices of clips, which differ between seeds.
_INDICES = "learns_from.indices"


class Run(NamedTuple):
    """A run directory.

    Attributes:
      path: the directory.
      kind: ``distill``, ``train``, ``active`` or ``folds``.
      config: of ``config.json``.
      result: of ``result.json``; empty for an unfinished run.
      history: rows of ``metrics.jsonl``.
    """

    path: Path
    kind: str
    config: dict[str, Any]
    result: dict[str, Any]
    history: list[dict[str, Any]]

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config["seed"]


class Group(NamedTuple):
    """Runs that differ in their seeds only.

    Attributes:
      runs: by seed.
      origin: name of the coreset that they were trained on, or empty.
      settings: ``name=value`` of what distinguishes them from similar groups.
    """

    runs: list[Run]
    origin: str
    settings: tuple[str, ...]

    @property
    def first(self) -> Run:
        """The run of the first seed."""
        return self.runs[0]

    def column(self, name: str) -> list[Any]:
        """A value of each run's ``result.json``."""
        return [run.result[name] for run in self.runs]

    def mean(self, name: str) -> float:
        """The mean of a value of ``result.json``."""
        return statistics.fmean(self.column(name))


def find(places: Sequence[Path]) -> list[Run]:
    """The runs in some folders, at any depth, sorted by path.

    Raises:
      UserError: a folder does not exist, or none holds a run.
    """
    found: dict[Path, Run] = {}
    for place in places:
        if not place.is_dir():
            raise UserError(f"there is no folder {place}")
        for file in sorted(place.rglob("config.json")):
            path = file.parent.resolve()
            run = _read(file.parent) if path not in found else None
            if run is not None:
                found[path] = run
    if not found:
        names = ", ".join(map(str, places))
        raise UserError(f"there is no run in {names}: a run has a config.json")
    return list(found.values())


def _read(path: Path) -> Run | None:
    """A run, or None if the folder holds no run that can be reported."""
    config, result = read_json(path / "config.json"), {}
    if not isinstance(config, dict):
        return None
    if (path / "result.json").exists():
        result = read_json(path / "result.json")
    kind = _kind(config, result)
    return (
        Run(path, kind, config, result, read_rows(path / "metrics.jsonl", "step"))
        if kind
        else None
    )


def _kind(config: dict[str, Any], result: dict[str, Any]) -> str | None:
    if "folds" in config:
        return "folds"
    if "active" in config:
        return "active"
    if "learns_from" in config and "model" in config:
        return "train"
    is_distillation = "method" in config and "coreset" in config
    return "distill" if is_distillation and result.get("method", True) else None


def grouped(
    runs: Sequence[Run], origins: Mapping[str, str] | None = None
) -> list[Group]:
    """Groups finished runs of one kind by experiment.

    Args:
      runs: of one kind; unfinished ones are left out.
      origins: names of the coresets that networks were trained on, by digest.
    """
    members: dict[str, list[Run]] = {}
    settings_of = {}
    for run in runs:
        if not run.result:
            continue
        settings = _flat(run.config)
        # The path identifies a folder's dataset, but not a published one.
        place = settings.get("data.data_dir")
        for name in _OF_A_SEED:
            settings.pop(name, None)
        if settings.get("data.name") == "folder":
            settings["data.data_dir"] = place
        if settings.get(_INDICES):
            settings[_INDICES] = "given"
        digest = settings.pop("learns_from.digest", None)
        origin = (origins or {}).get(digest, digest or "")
        key = json.dumps([settings, origin], sort_keys=True)
        members.setdefault(key, []).append(run)
        settings_of[key] = settings, origin
    groups = []
    for key, alike in members.items():
        own, origin = settings_of[key]
        rivals = [
            other
            for other, (settings, its) in settings_of.items()
            if its == origin and _shown(settings) == _shown(own)
        ]
        names = [
            name
            for name in sorted(own)
            if any(settings_of[other][0].get(name) != own[name] for other in rivals)
        ]
        differing = tuple(f"{name}={own[name]}" for name in names)
        # A copy of a run is not another seed.
        once = {(run.seed, _digest(run)): run for run in reversed(alike)}
        alike = sorted(once.values(), key=lambda run: run.seed)
        groups.append(Group(alike, origin, differing))
    return groups


# Settings that have columns of their own in the tables.
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
)


def _digest(run: Run) -> str | None:
    """Digest of the coreset that a network was trained on."""
    return run.config.get("learns_from", {}).get("digest")


def _shown(settings: dict[str, Any]) -> list[Any]:
    """The values of a group's own columns; equal groups are told apart by settings."""
    return [settings.get(name) for name in _SHOWN]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
