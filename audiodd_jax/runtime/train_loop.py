"""The loop of a run: chunks of compiled steps, metrics, checkpoints, signals."""

import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array

from audiodd_jax.errors import UserError
from audiodd_jax.runtime import multiprocess, progress
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.runtime.run_log import RunLog
from audiodd_jax.runtime.signals import Interrupted, deferred_signals

_log = logging.getLogger(__name__)


class Schedule(NamedTuple):
    """Length of a run, and the intervals of what recurs, in steps.

    Attributes:
      steps: in total.
      log_every: per compiled chunk.
      eval_every: between validations; 0: only at the end.
      checkpoint_every: between checkpoints.
    """

    steps: int
    log_every: int
    eval_every: int
    checkpoint_every: int


class Task(NamedTuple):
    """What a run does, chunk by chunk.

    Attributes:
      name: shown next to the progress bar.
      start: ``step -> advance``, where ``advance(state, length)`` takes that many
        steps and returns the state and metrics; ``step`` is the number of steps taken.
      validate: ``(state, row) -> state``: writes the validation into the row, keeps the
        best.
      is_done: ``(state, step) -> bool``: whether to stop early.
      advice: what to change if the loss is not finite.
      metric: what ``batch_accuracy`` and ``validation_accuracy`` are, in words.
    """

    name: str
    start: Callable[[int], Callable[[Any, int], tuple[Any, dict[str, Array]]]]
    validate: Callable[[Any, dict[str, Any]], Any]
    is_done: Callable[[Any, int], bool]
    advice: str
    metric: str = "accuracy"


class Outcome(NamedTuple):
    """The end of a run.

    Attributes:
      state: the last.
      step: steps taken, fewer than scheduled if it stopped early.
      history: one row per chunk.
    """

    state: Any
    step: int
    history: list[dict[str, Any]]


def train_loop(
    task: Task, state: Any, schedule: Schedule, run: RunDirectory | None = None
) -> Outcome:
    """Runs a task to its end, from its last checkpoint if it was interrupted.

    Chunks end on multiples of ``log_every``, so that a resumed run has the same ones.

    Args:
      task: what to do.
      state: initial pytree of arrays.
      schedule: length and intervals.
      run: where to record, checkpoint and resume; None keeps everything in memory.

    Raises:
      UserError: the loss is not finite.
      Interrupted: SIGTERM or SIGINT arrived; the state is saved.
    """
    with deferred_signals() as stop_signal, RunLog(run) as log:
        step, state = log.resume(state)
        with _Progress(task, step, schedule.steps) as shown:
            if not log.history:
                state = _record_start(task, state, log)
            advance = task.start(step)
            loop = _Loop(task, schedule, log, shown, step)
            while not task.is_done(state, loop.step) and (length := loop.next_length()):
                state = loop.after(*advance(state, length), length, stop_signal)
    return Outcome(state, loop.step, log.history)


def _record_start(task: Task, state: Any, log: RunLog) -> Any:
    """Validates, records and saves the state before the first step."""
    row: dict[str, Any] = {"step": 0}
    state = task.validate(state, row)
    log.record(row)
    log.save(state, 0)
    return state


class _Loop:
    """What happens between two chunks of steps."""

    def __init__(
        self,
        task: Task,
        schedule: Schedule,
        log: RunLog,
        shown: "_Progress",
        step: int,
    ):
        self.step = step
        self._task, self._schedule = task, schedule
        self._log, self._progress = log, shown

    def next_length(self) -> int:
        """Steps of the next chunk; 0 at the end of the schedule."""
        return min(self._schedule.log_every, self._schedule.steps - self.step)

    def after(
        self,
        state: Any,
        metrics: dict[str, Array],
        length: int,
        stop_signal: Callable[[], int],
    ) -> Any:
        """Validates, records and saves after a chunk; returns the state.

        Raises:
          UserError: the loss is not finite.
          Interrupted: a signal arrived in some process; the state is saved.
        """
        before, self.step = self.step, self.step + length
        is_last = self.step == self._schedule.steps
        crosses = lambda every: every > 0 and self.step // every > before // every
        is_due = lambda every: is_last or crosses(every)
        row = {"step": self.step, **{k: float(v) for k, v in metrics.items()}}
        if not all(map(math.isfinite, row.values())):
            raise UserError(
                "the loss or its gradient is not a finite number at step "
                f"{self.step}{self._log.last_good()}; {self._task.advice}"
            )
        is_reviewed = is_due(self._schedule.eval_every)
        if is_reviewed:
            state = self._task.validate(state, row)
        self._log.record(row)
        self._progress.show(row, length, is_reviewed)
        stopping = multiprocess.any_of(stop_signal())
        if stopping or is_due(self._schedule.checkpoint_every):
            self._log.save(state, self.step)
        if stopping:
            raise Interrupted(stopping, self.step)
        return state


class _Progress:
    """A progress bar on a terminal, log lines elsewhere; in process 0 only."""

    def __init__(self, task: Task, step: int, steps: int):
        self._steps, self._metric = steps, task.metric
        self._is_shown = multiprocess.is_process_zero()
        self._bar = progress.bar(steps, initial=step, desc=task.name, unit="step")
        self._ticking = progress.ticking(self._bar)
        self._postfix: dict[str, str] = {}

    def __enter__(self) -> "_Progress":
        # Until the first chunk has ended.
        self._bar.set_postfix_str("compiling")
        self._ticking.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._ticking.__exit__(None, None, None)

    def show(self, row: dict[str, Any], length: int, is_reviewed: bool) -> None:
        """Shows the metrics of a chunk."""
        if is_reviewed and self._bar.disable and self._is_shown:
            _log.info(_line(row, self._steps, self._metric))
        self._postfix["loss"] = f"{row['loss']:.4f}"
        if "validation_accuracy" in row:
            self._postfix["validation"] = f"{row['validation_accuracy']:.3f}"
        self._bar.update(length)
        self._bar.set_postfix(self._postfix)


def _line(row: dict[str, Any], steps: int, metric: str) -> str:
    text = f"step {row['step']} of {steps}, loss {row['loss']:.4f}"
    if "validation_accuracy" in row:
        text += f", validation {metric} {100 * row['validation_accuracy']:.1f} %"
    return text
