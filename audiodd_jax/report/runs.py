"""Reads run directories into flat rows, and scores by class or tag over seeds."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from audiodd_jax.config import DataConfig, fields, presets
from audiodd_jax.data import datasets
from audiodd_jax.errors import UserError
from audiodd_jax.features.metric import ACCURACY, score_of
from audiodd_jax.report import tables
from audiodd_jax.report.evaluation_table import learned_from
from audiodd_jax.runtime.files import DAMAGE, read_json, read_rows
from audiodd_jax.training import scores as scores_lib
from audiodd_jax.training.scores import Evaluation

# Protocols in words; networks keep their names.
_LEARNERS = {
    "krr": "kernel regression",
    "nngp": "kernel regression, exact NNGP kernel",
    "ntk": "kernel regression, exact NTK kernel",
}
# Keys of ``Evaluation.summary``: the details of each seed, and the scores by class.
_KEYS = (
    ("confusions", "per_class_accuracy"),
    ("average_precisions", "per_class_average_precision"),
)
_DAMAGE = (*DAMAGE, AttributeError, IndexError, OverflowError)


# The record of a sweep, in its folder.
SWEEP_RECORD = "sweep.jsonl"


class Run(NamedTuple):
    """A run as a flat row; an unfinished run has only the first four fields.

    Attributes:
      kind: ``distill``, ``train``, ``active``, ``folds``, or ``kernel`` for a kernel
        regression of an evaluation.
      history: rows of ``metrics.jsonl``.
      result: contents of ``result.json``, or a row of ``evaluation.json``.
      learns_from: the training set in words: ``rfad, 10 per class``.
      learner: the model in words: ``kernel regression``, ``convnet``.
      examples: number of spectrograms or clips in the training set.
      num_bytes: size of these examples; None if unknown.
      accuracies: on the test split, one per seed or fold.
      start: accuracy on the real clips that a distillation started from, or None.
      seconds: to distil, to train, or for all rounds of active learning.
      metric: what the accuracies are, in words.
      scores: summaries of evaluations, which may include scores by class.
      evaluation: other kernel regressions of ``evaluation.json``.
      state: how a run without a result ended in a sweep, perhaps before it began.
    """

    path: Path
    kind: str
    config: dict[str, Any]
    history: Sequence[dict[str, Any]] = ()
    result: Mapping[str, Any] | None = None
    dataset: str = ""
    learns_from: str = ""
    learner: str = ""
    examples: int = 0
    num_bytes: int | None = None
    accuracies: tuple[float, ...] = ()
    start: float | None = None
    seconds: float = 0.0
    metric: str = ACCURACY
    scores: Sequence[Mapping[str, Any]] = ()
    evaluation: Sequence["Run"] = ()
    state: str = ""

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config["seed"]

    @property
    def title(self) -> str:
        """Name of the dataset, also of a run without a result."""
        data = {"name": "", **self.config.get("data", {})}
        return self.dataset or datasets.title_of(fields.from_dict(data, DataConfig))

    @property
    def digest(self) -> str | None:
        """Digest of the coreset that a network was trained on, if any."""
        return self.config.get("learns_from", {}).get("digest")


def find(folders: Sequence[Path]) -> list[Run]:
    """Returns the runs in these folders, at any depth, and the failed ones of sweeps.

    Raises:
      UserError: a folder does not exist or a file is damaged, or there is no run.
    """
    runs: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}")
        for file in sorted(folder.rglob("config.json")):
            path = file.parent.resolve()
            run = _read(file.parent) if path not in runs else None
            if run is not None:
                runs[path] = run
        for path, state in sorted(_states(folder).items()):
            blank = Run(path, "", {"data": {"name": ""}, "seed": ""})
            run = runs.get(path.resolve(), blank)
            if not run.result:
                runs[path.resolve()] = run._replace(state=state)
    if not runs:
        names = ", ".join(map(str, folders))
        raise UserError(f"there is no run in {names}: a run has a config.json")
    return list(runs.values())


def _states(folder: Path) -> dict[Path, str]:
    """Returns the last event of each run of the sweeps in a folder, with its reason."""
    states = {}
    for record in folder.rglob(SWEEP_RECORD):
        for row in read_rows(record, "run", "event", skip=True):
            words = filter(None, (row["event"], row.get("reason")))
            states[record.parent / row["run"]] = ": ".join(words)
    return states


def _read(path: Path) -> Run | None:
    """Returns the run in a folder, or None if it is of a kind without a report."""
    config, result = read_json(path / "config.json"), {}
    if not isinstance(config, dict) or "session" in config:  # audiodd label
        return None
    if (path / "result.json").exists():
        result = read_json(path / "result.json")
    is_distillation = "method" in config and "coreset" in config
    if "folds" in config:
        kind = "folds"
    elif "active" in config:
        kind = "active"
    elif "learns_from" in config and "model" in config:
        kind = "train"
    elif is_distillation and (result or {}).get("method", True):
        kind = "distill"
    else:
        return None
    run = Run(path, kind, config, read_rows(path / "metrics.jsonl", "step"))
    if not result:
        return run
    try:
        run = run._replace(result=result, **_row(kind, result))
        pooled(run.scores)
    except _DAMAGE as error:
        raise UserError(f"{path} is damaged: its result cannot be read") from error
    return _evaluated(run) if kind == "distill" else run


def _row(kind: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a finished run."""
    row = {
        "dataset": result["dataset"],
        "seconds": result["wall_seconds"],
        "metric": result.get("measure", ACCURACY),
    }
    if kind == "active":
        last = result["rounds"][-1]
        return row | {
            "learns_from": f"labels chosen by {result['acquisition']}",
            "learner": result["model"],
            "examples": last["counted"],
            "accuracies": (score_of(last),),
        }
    if kind == "train":
        return row | {
            "learns_from": learned_from(result["learns_from"]),
            "learner": result["model"],
            "examples": result["num_samples"],
            "accuracies": tuple(score_of(result, "test_accuracies")),
            "scores": [result],
        }
    name = f"{result['method']}, {tables.per_class(result)} per class"
    if (factor := result.get("factor", 1)) != 1:
        name += f", factor {factor}"
    learner = _LEARNERS.get(result["protocol"], result["protocol"])
    row |= {"learns_from": name, "learner": learner}
    if kind == "folds":
        return row | {"accuracies": tuple(map(score_of, result["folds"]))}
    is_started = result["start"] == "real" and result["steps"]
    return row | {
        "examples": result["num_samples"],
        "num_bytes": result["bytes"],
        "accuracies": (score_of(result),),
        "start": score_of(result, "start_test_accuracy") if is_started else None,
    }


def _evaluated(run: Run) -> Run:
    """Adds what ``evaluation.json`` says about a coreset, if the file exists.

    Trainings of networks are left out, since they are runs themselves.

    Raises:
      UserError: the file is damaged.
    """
    path = run.path / "evaluation" / "evaluation.json"
    if not path.exists():
        return run
    scores, evaluation = [], []
    try:
        for row in read_json(path):
            name, protocol = row["learns_from"], row["protocol"]
            pooled([row])
            regression = Run(
                run.path,
                "kernel",
                run.config,
                result=row,
                dataset=run.dataset,
                learns_from=learned_from(name),
                learner=_LEARNERS.get(protocol, protocol),
                examples=row["num_samples"],
                num_bytes=run.num_bytes if name == "coreset" else None,
                accuracies=tuple(map(float, score_of(row, "test_accuracies"))),
                seconds=row["seconds"],
                metric=row.get("measure", ACCURACY),
                scores=[row],
            )
            if presets.is_network(protocol):
                continue
            if (name, protocol) == ("coreset", run.result["protocol"]):
                scores.append(row)
            else:
                evaluation.append(regression)
    except _DAMAGE as error:
        raise UserError(f"{path} is damaged: it is not an evaluation") from error
    return run._replace(scores=scores, evaluation=evaluation)


class ClassScores(NamedTuple):
    """Scores over all seeds, with the names of their ``c`` classes or tags."""

    class_names: tuple[str, ...]
    scores: Evaluation

    @property
    def metric(self) -> str:
        """The score of each class or tag."""
        tags = self.scores.tags
        return "average precision of each tag" if tags else "accuracy of each class"

    @property
    def accuracies(self) -> list[float | None]:
        """Accuracy or average precision of each; None without test clips."""
        shares = self.scores.per_class.tolist()
        return [None if math.isnan(share) else share for share in shares]

    @property
    def counts(self) -> Int[np.ndarray, "c c"] | None:
        """Clips by class (rows) and prediction (columns); None for tags."""
        confusions = self.scores.confusions
        return None if confusions is None else confusions.sum(0)

    @property
    def shares(self) -> list[list[float]]:
        """Each prediction's share of a class's clips."""
        totals = np.maximum(self.counts.sum(1, keepdims=True), 1)
        return (self.counts / totals).tolist()

    def mistakes(self, most: int = 5) -> Iterator[str]:
        """Describes the most frequent mistakes."""
        wrong, totals = self.counts, self.counts.sum(1)
        np.fill_diagonal(wrong, 0)
        for index in np.argsort(-wrong, axis=None, kind="stable")[:most]:
            row, column = np.unravel_index(index, wrong.shape)
            if wrong[row, column]:
                name, other = self.class_names[row], self.class_names[column]
                count = f"{wrong[row, column]:,} of {totals[row]:,}"
                yield f"{name}, mistaken for {other}: {count}"


def pooled(summaries: Sequence[Mapping[str, Any]]) -> ClassScores | None:
    """Pools the scores of several seeds, as ``Evaluation.summary`` gives them.

    Returns None if a seed has no scores by class, or the seeds have different classes.

    Raises:
      ValueError: a summary is damaged; also further exceptions of ``DAMAGE``.
    """
    kinds = set()
    for row in summaries:
        found = [(key, tuple(row[names])) for key, names in _KEYS if row.get(key)]
        kinds |= set(found or [None])
    if len(kinds) != 1 or None in kinds:
        return None
    ((_, class_names),) = kinds
    scores = scores_lib.joined([scores_lib.from_summary(row) for row in summaries])
    size, confusions = len(class_names), scores.confusions
    if confusions is None:
        is_sound = scores.tags.precisions.shape[1:] == (size,)
    else:
        is_sound = confusions.shape[1:] == (size, size) and confusions.min() >= 0
    if not is_sound:
        raise ValueError(f"not the scores of {size} classes")
    return ClassScores(class_names, scores)
