"""Reads run directories into flat rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from audiodd_jax.config import presets
from audiodd_jax.errors import UserError
from audiodd_jax.features.metric import ACCURACY
from audiodd_jax.report import class_scores
from audiodd_jax.report.evaluation_table import learned_from
from audiodd_jax.runtime.files import DAMAGE, read_json, read_rows

_LEARNERS = {
    "krr": "kernel regression",
    "nngp": "kernel regression, exact NNGP kernel",
    "ntk": "kernel regression, exact NTK kernel",
}
_DAMAGE = (*DAMAGE, AttributeError, IndexError, OverflowError)


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

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config["seed"]

    @property
    def digest(self) -> str | None:
        """Digest of the coreset that a network was trained on, if any."""
        return self.config.get("learns_from", {}).get("digest")


def find(folders: Sequence[Path]) -> list[Run]:
    """Returns the runs in these folders, at any depth, sorted by path.

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
    if not runs:
        names = ", ".join(map(str, folders))
        raise UserError(f"there is no run in {names}: a run has a config.json")
    return list(runs.values())


def _read(path: Path) -> Run | None:
    """Returns the run in a folder, or None if it is of a kind without a report."""
    config, result = read_json(path / "config.json"), {}
    if not isinstance(config, dict):
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
        class_scores.pooled(run.scores)
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
            "accuracies": (last["test_accuracy"],),
        }
    if kind == "train":
        return row | {
            "learns_from": learned_from(result["learns_from"]),
            "learner": result["model"],
            "examples": result["num_samples"],
            "accuracies": tuple(result["test_accuracies"]),
            "scores": [result],
        }
    name = f"{result['method']}, {result['samples_per_class']} per class"
    if (factor := result.get("factor", 1)) > 1:
        name += f", factor {factor}"
    row |= {"learns_from": name, "learner": _learner(result["protocol"])}
    if kind == "folds":
        return row | {"accuracies": tuple(f["test_accuracy"] for f in result["folds"])}
    is_started = result["start"] == "real" and result["steps"]
    return row | {
        "examples": result["num_samples"],
        "num_bytes": result["bytes"],
        "accuracies": (result["test_accuracy"],),
        "start": result["start_test_accuracy"] if is_started else None,
    }


def _learner(protocol: str) -> str:
    """Returns a protocol in words; networks keep their names."""
    return _LEARNERS.get(protocol, protocol)


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
            class_scores.pooled([row])
            regression = Run(
                run.path,
                "kernel",
                run.config,
                result=row,
                dataset=run.dataset,
                learns_from=learned_from(name),
                learner=_learner(protocol),
                examples=row["num_samples"],
                num_bytes=run.num_bytes if name == "coreset" else None,
                accuracies=tuple(map(float, row["test_accuracies"])),
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
