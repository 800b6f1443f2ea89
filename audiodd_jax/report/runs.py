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


class Run(NamedTuple):
    """A run as a flat row; an unfinished run has only the first four fields.

    Attributes:
      path: the run directory.
      kind: ``distill``, ``train``, ``active``, ``folds``, or ``kernel`` for a kernel
        regression of an evaluation.
      config: contents of ``config.json``.
      history: rows of ``metrics.jsonl``.
      result: contents of ``result.json``, or a row of ``evaluation.json``.
      dataset: its name.
      learns_from: the training set in words: ``rfad, 10 per class``.
      learner: the model in words: ``kernel regression``, ``convnet``.
      examples: number of spectrograms or clips in the training set.
      num_bytes: size of these examples; None if unknown.
      accuracies: on the test split, one per seed or fold.
      start: accuracy on the real clips that a distillation started from, or None.
      seconds: to distil, to train, or for all rounds of active learning.
      metric: what the accuracies are, in words.
      scores: summaries of evaluations, which may include scores by class.
      evaluation: further rows of ``evaluation.json`` by kernel regression.
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
    evaluation: Sequence[Mapping[str, Any]] = ()

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config["seed"]


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
    config, result = read_json(path / "config.json"), None
    if not isinstance(config, dict):
        return None
    if (path / "result.json").exists():
        result = read_json(path / "result.json")
    kind = _kind(config, result or {})
    if kind is None:
        return None
    run = Run(path, kind, config, read_rows(path / "metrics.jsonl", "step"))
    if not result:
        return run
    try:
        run = _with_result(run, result)
        class_scores.pooled(run.scores)
    except (*DAMAGE, AttributeError, IndexError, OverflowError) as error:
        raise UserError(f"{path} is damaged: its result cannot be read") from error
    return run


def _with_result(run: Run, result: dict[str, Any]) -> Run:
    run = run._replace(
        result=result,
        dataset=result["dataset"],
        seconds=result["wall_seconds"],
        metric=result.get("measure", ACCURACY),
    )
    if run.kind == "active":
        return _active(run)
    if run.kind == "train":
        return _training(run)
    run = _coreset(run)
    return run if run.kind == "folds" else _evaluated(run)


def _kind(config: dict[str, Any], result: dict[str, Any]) -> str | None:
    if "folds" in config:
        return "folds"
    if "active" in config:
        return "active"
    if "learns_from" in config and "model" in config:
        return "train"
    is_distillation = "method" in config and "coreset" in config
    return "distill" if is_distillation and result.get("method", True) else None


def _coreset(run: Run) -> Run:
    """Fills in the row of a distillation, a choice of clips, or a run of every fold."""
    result = run.result
    name = f"{result['method']}, {result['samples_per_class']} per class"
    if (factor := result.get("factor", 1)) > 1:
        name += f", factor {factor}"
    run = run._replace(learns_from=name, learner=learner(result["protocol"]))
    if run.kind == "folds":
        return run._replace(
            accuracies=tuple(row["test_accuracy"] for row in result["folds"])
        )
    is_started = result["start"] == "real" and result["steps"]
    return run._replace(
        examples=result["num_samples"],
        num_bytes=result["bytes"],
        accuracies=(result["test_accuracy"],),
        start=result["start_test_accuracy"] if is_started else None,
    )


def learner(protocol: str) -> str:
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
    rows = read_json(path)
    try:
        for row in rows:
            row["protocol"], row["learns_from"], row["seconds"], row["num_samples"]
            [float(accuracy) for accuracy in row["test_accuracies"]]
            class_scores.pooled([row])
    except (*DAMAGE, AttributeError, IndexError, OverflowError) as error:
        raise UserError(f"{path} is damaged: it is not an evaluation") from error
    own = "coreset", run.result["protocol"]
    is_own = lambda row: (row["learns_from"], row["protocol"]) == own
    by_kernels = [row for row in rows if not presets.is_network(row["protocol"])]
    return run._replace(
        scores=[row for row in by_kernels if is_own(row)],
        evaluation=[row for row in by_kernels if not is_own(row)],
    )


def _training(run: Run) -> Run:
    result = run.result
    return run._replace(
        learns_from=learned_from(result["learns_from"]),
        learner=result["model"],
        examples=result["num_samples"],
        accuracies=tuple(result["test_accuracies"]),
        scores=[result],
    )


def _active(run: Run) -> Run:
    result, last = run.result, run.result["rounds"][-1]
    return run._replace(
        learns_from=f"labels chosen by {result['acquisition']}",
        learner=result["model"],
        examples=last["counted"],
        accuracies=(last["test_accuracy"],),
    )
