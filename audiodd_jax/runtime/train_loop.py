"""The loop of a run: chunks of compiled steps, metrics, checkpoints, signals."""

import logging
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array
from tqdm import tqdm

from audiodd_jax.errors import NotFiniteError
from audiodd_jax.runtime import multiprocess, progress
from audiodd_jax.runtime.checkpoints import Checkpoints
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.runtime.signals import Interrupted, deferred_signals

_log = logging.getLogger(__name__)


class RunLog:
    """Metrics and checkpoints of a run; only in memory if it has no directory."""

    def __init__(self, run: RunDirectory | None):
        self._run = run
        self._checkpoints = Checkpoints(run.path / "checkpoints") if run else None
        self._began = time.perf_counter()
        self.history: list[dict[str, Any]] = []

    def resume(self, state: Any) -> tuple[int, Any]:
        """Returns the step and state of the last checkpoint, else 0 and ``state``."""
        if not self._run:
            return 0, state
        step, state = self._checkpoints.restore_latest(state) or (-1, state)
        if step >= 0 and multiprocess.is_process_zero():
            _log.info("resuming %s from step %d", self._run.path, step)
        self._run.start_from(step)
        self.history = self._run.history()
        if self.history:
            self._began -= self.history[-1]["seconds"]
        return max(0, step), state

    def record(self, row: dict[str, Any]) -> None:
        """Records a row of metrics and the seconds that the run has taken so far."""
        row = {**row, "seconds": round(time.perf_counter() - self._began, 3)}
        self.history.append(row)
        if self._run:
            self._run.log(row)

    def save(self, state: Any, step: int) -> None:
        """Writes a checkpoint."""
        if self._checkpoints:
            self._checkpoints.save(step, state)

    def last_good(self) -> str:
        """Names the last saved state, as the end of a sentence."""
        if not self._checkpoints:
            return ""
        path = self._checkpoints.path(self._checkpoints.latest() or 0)
        return f"; the last good state is {path}"


@runtime_checkable
class Schedule(Protocol):
    """The length of a run, a compiled chunk, and intervals between events, in steps.

    ``eval_every`` 0 validates only at the end.
    """

    steps: int
    log_every: int
    eval_every: int
    checkpoint_every: int


class Task(NamedTuple):
    """The work of a run, chunk by chunk.

    Attributes:
      name: shown next to the progress bar.
      start: ``step -> advance``, after ``step`` steps; ``advance(state, length)`` takes
        ``length`` steps and returns the new state and its metrics.
      validate: ``(state, row) -> state``; writes its scores into ``row`` and keeps the
        best state.
      is_done: ``(state, step) -> bool``; True stops early.
      advice: what to change if the loss is not finite.
      metric: name of the metric behind ``batch_accuracy`` and ``validation_accuracy``.
    """

    name: str
    start: Callable[[int], Callable[[Any, int], tuple[Any, dict[str, Array]]]]
    validate: Callable[[Any, dict[str, Any]], Any]
    is_done: Callable[[Any, int], bool]
    advice: str
    metric: str = "accuracy"


class Outcome(NamedTuple):
    """The last state, the number of steps taken, and one row per chunk."""

    state: Any
    step: int
    history: list[dict[str, Any]]


def train_loop(
    task: Task, state: Any, schedule: Schedule, run: RunDirectory | None = None
) -> Outcome:
    """Runs a task to its end, from its last checkpoint if it was interrupted.

    Chunks end on multiples of ``log_every``, so that a resumed run has the same ones.
    Without ``run``, nothing is recorded or saved on disk.

    Raises:
      NotFiniteError: the loss is not finite.
      Interrupted: SIGTERM or SIGINT arrived; the state is saved.
    """

    def is_due(every: int) -> bool:
        """At the end, and if ``every`` has a multiple in ``(before, step]``."""
        is_crossed = every > 0 and step // every > before // every
        return is_crossed or step == schedule.steps

    log = RunLog(run)
    with deferred_signals() as stop_signal:
        step, state = log.resume(state)
        options = {"initial": step, "desc": task.name, "unit": "step"}
        is_logged = multiprocess.is_process_zero() and not progress.is_drawn()
        with progress.bar(schedule.steps, **options) as bar:
            bar.set_postfix_str("compiling")  # until the first chunk has ended
            shown: dict[str, str] = {}
            if not log.history:
                row: dict[str, Any] = {"step": 0}
                state = task.validate(state, row)
                log.record(row)
                log.save(state, 0)
            advance = task.start(step)
            for before in range(step, schedule.steps, schedule.log_every):
                if task.is_done(state, before):
                    break
                step = min(before + schedule.log_every, schedule.steps)
                state, metrics = advance(state, step - before)
                row = {"step": step, **{k: float(v) for k, v in metrics.items()}}
                if not all(map(math.isfinite, row.values())):
                    raise NotFiniteError(
                        "the loss or its gradient is not a finite number at step "
                        f"{step}{log.last_good()}; {task.advice}"
                    )
                is_validated = is_due(schedule.eval_every)
                if is_validated:
                    state = task.validate(state, row)
                log.record(row)
                _show(bar, shown, row, step - before)
                if is_validated and is_logged:
                    text = f"step {step} of {schedule.steps}, loss {row['loss']:.4f}"
                    if "validation_accuracy" in row:
                        percent = 100 * row["validation_accuracy"]
                        text += f", validation {task.metric} {percent:.1f} %"
                    _log.info(text)
                stopping = multiprocess.any_of(stop_signal())
                if stopping or is_due(schedule.checkpoint_every):
                    log.save(state, step)
                if stopping:
                    raise Interrupted(stopping, step)
    return Outcome(state, step, log.history)


def _show(bar: tqdm, shown: dict[str, str], row: dict[str, Any], length: int) -> None:
    """Moves the progress bar by a chunk; ``shown`` keeps the last validation."""
    shown["loss"] = f"{row['loss']:.4f}"
    if "validation_accuracy" in row:
        shown["validation"] = f"{row['validation_accuracy']:.3f}"
    bar.update(length)
    bar.set_postfix(shown)
