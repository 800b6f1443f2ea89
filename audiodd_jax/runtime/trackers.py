"""Trackers, which show a run's metrics elsewhere: TensorBoard, wandb, MLflow, clu.

A tracker is a function of ``Start`` that returns a ``Tracker``. Other packages register
theirs with the entry point ``audiodd.trackers``. One that fails never ends a run.
"""

import logging
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from audiodd_jax.runtime import files

_log = logging.getLogger(__name__)
_PROJECT = "audiodd_jax"
# The identifiers of a run in other trackers, in its directory.
_IDENTIFIERS = "tracker.json"


class Start(NamedTuple):
    """The run that a tracker is started for.

    Attributes:
      folder: the run directory; its name is the run's.
      config: the recorded settings.
      step: the first step to be logged; a resumed run logs again from it on.
    """

    folder: Path
    config: Mapping[str, Any]
    step: int


@runtime_checkable
class Tracker(Protocol):
    """Calls of a run, in this order; ``finish`` also after an interruption."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the metrics of a step."""

    def images(self, step: int, pictures: Mapping[str, Path]) -> None:
        """Logs PNG files by name."""

    def finish(self, result: Mapping[str, float]) -> None:
        """Ends the log, with the final scores; without any if the run has none."""


class Trackers:
    """Several trackers as one; those that fail are left out with a warning."""

    def __init__(self, starts: Mapping[str, Callable[[Start], Tracker]], run: Start):
        self._running: dict[str, Tracker] = {}
        for name, start in starts.items():
            if (tracker := _attempt(name, lambda start=start: start(run))) is not None:
                self._running[name] = tracker

    def _each(self, call: Callable[[Tracker], Any]) -> None:
        done = lambda tracker: [call(tracker)]
        for name, tracker in list(self._running.items()):
            if _attempt(name, lambda tracker=tracker: done(tracker)) is None:
                del self._running[name]

    def scalars(self, step: int, row: Mapping[str, Any]) -> None:
        """Logs the numbers of a row of metrics."""
        values = _numbers(row)
        self._each(lambda tracker: tracker.scalars(step, values))

    def finish(self, step: int, result: Mapping[str, Any], figures: Path) -> None:
        """Logs the pictures in a folder and the numbers of a result, and ends."""
        if pictures := {path.stem: path for path in sorted(figures.glob("*.png"))}:
            self._each(lambda tracker: tracker.images(step, pictures))
        self.close(result)

    def close(self, result: Mapping[str, Any] | None = None) -> None:
        """Ends all logs; does nothing if they have ended."""
        scores = _numbers(result or {})
        self._each(lambda tracker: tracker.finish(scores))
        self._running.clear()


def _attempt(name: str, call: Callable[[], Any]) -> Any:
    """Returns the result of a call, or None with a warning if it fails."""
    try:
        return call()
    except Exception as error:  # of any library
        why = (str(error).splitlines() or [""])[0]
        words = (name, type(error).__name__, why)
        _log.warning("the tracker %s failed and is left out: %s: %s", *words)
        return None


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    is_number = lambda value: isinstance(value, int | float)
    return {k: float(v) for k, v in row.items() if k != "step" and is_number(v)}


def tensorboard(run: Start) -> Tracker:
    """Event files in the run directory, for TensorBoard."""
    # Imported here because it takes a second.
    from tensorboardX import SummaryWriter

    return _TensorBoard(SummaryWriter(str(run.folder), purge_step=run.step))


class _TensorBoard(NamedTuple):
    writer: Any

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def images(self, step: int, pictures: Mapping[str, Path]) -> None:
        from matplotlib.image import imread

        for name, path in pictures.items():
            self.writer.add_image(name, imread(path), step, dataformats="HWC")

    def finish(self, result: Mapping[str, float]) -> None:
        self.writer.close()


def wandb(run: Start) -> Tracker:
    """Weights & Biases; ``WANDB_MODE`` and ``WANDB_PROJECT`` hold as usual."""
    import wandb

    new = lambda: uuid.uuid4().hex[:8]
    return _Wandb(
        wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=run.folder.name,
            id=_identifier(run.folder, "wandb", new),
            resume="allow",
            dir=run.folder,
            config=dict(run.config),
            settings=wandb.Settings(silent=True),
        )
    )


class _Wandb(NamedTuple):
    run: Any

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def images(self, step: int, pictures: Mapping[str, Path]) -> None:
        import wandb

        shown = {name: wandb.Image(str(path)) for name, path in pictures.items()}
        self.run.log(shown, step=step)

    def finish(self, result: Mapping[str, float]) -> None:
        self.run.summary.update(dict(result))
        self.run.finish()


def mlflow(run: Start) -> Tracker:
    """MLflow; ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` hold as usual."""
    from mlflow import MlflowClient

    client = MlflowClient()

    def new() -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        found = client.get_experiment_by_name(name)
        number = found.experiment_id if found else client.create_experiment(name)
        created = client.create_run(number, run_name=run.folder.name).info.run_id
        client.log_dict(created, dict(run.config), "config.json")
        return created

    return _MLflow(client, _identifier(run.folder, "mlflow", new))


class _MLflow(NamedTuple):
    client: Any
    run: str

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run, name, value, step=step)

    def images(self, step: int, pictures: Mapping[str, Path]) -> None:
        for path in pictures.values():
            self.client.log_artifact(self.run, str(path), "figures")

    def finish(self, result: Mapping[str, float]) -> None:
        self.scalars(0, {f"result.{name}": value for name, value in result.items()})
        self.client.set_terminated(self.run, "FINISHED" if result else "KILLED")


def clu(run: Start) -> Tracker:
    """The default metric writer of clu, in the run directory; it needs TensorFlow."""
    from clu import metric_writers

    return _Clu(metric_writers.create_default_writer(str(run.folder)))


class _Clu(NamedTuple):
    writer: Any

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.writer.write_scalars(step, values)

    def images(self, step: int, pictures: Mapping[str, Path]) -> None:
        from matplotlib.image import imread

        shown = {name: imread(path)[None] for name, path in pictures.items()}
        self.writer.write_images(step, shown)

    def finish(self, result: Mapping[str, float]) -> None:
        self.writer.close()


def _identifier(folder: Path, tracker: str, new: Callable[[], str]) -> str:
    """Returns the run's identifier in a tracker, which a resumed run finds again."""
    file = folder / _IDENTIFIERS
    known = files.read_json(file) if file.exists() else {}
    if tracker not in known:
        known[tracker] = new()
        files.write_json(file, known)
    return known[tracker]


DEFAULT = {"tensorboard": tensorboard}
