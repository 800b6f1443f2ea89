"""The loop of a run: chunks of compiled steps, metrics, checkpoints, signals."""

import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array
from tqdm import tqdm

from audiodd_jax.errors import UserError
from audiodd_jax.runtime import multiprocess, progress
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.runtime.run_log import RunLog
from audiodd_jax.runtime.signals import Interrupted, deferred_signals

_log = logging.getLogger(__name__)


class Schedule(NamedTuple):
    """The length of a run and the intervals between its events, in steps.

    Attributes:
      steps: total number of steps.
      log_every: steps per compiled chunk.
      eval_every: steps between validations; 0: only at the end.
      checkpoint_every: steps between checkpoints.
    """

    steps: int
    log_every: int
    eval_every: int
    checkpoint_every: int

    def is_due(self, every: int, before: int, step: int) -> bool:
        """True at the end, and if ``every`` has a multiple in ``(before, step]``."""
        is_crossed = every > 0 and step // every > before // every
        return is_crossed or step == self.steps


class Task(NamedTuple):
    """The work of a run, chunk by chunk.

    Attributes:
      name: shown next to the progress bar.
      start: ``step -> advance``, where ``advance(state, length)`` takes ``length``
        steps and returns the new state and its metrics; ``step`` is the number of
        steps taken so far.
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

    Args:
      state: the initial pytree of arrays.
      run: where to record, checkpoint and resume; None: memory only.

    Raises:
      UserError: the loss is not finite.
      Interrupted: SIGTERM or SIGINT arrived; the state is saved.
    """
    log = RunLog(run)
    with deferred_signals() as stop_signal:
        step, state = log.resume(state)
        options = {"initial": step, "desc": task.name, "unit": "step"}
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
                _check_finite(row, log, task.advice)
                is_validated = schedule.is_due(schedule.eval_every, before, step)
                if is_validated:
                    state = task.validate(state, row)
                log.record(row)
                _show(bar, shown, row, step - before)
                if is_validated and bar.disable and multiprocess.is_process_zero():
                    _log.info(_line(row, schedule.steps, task.metric))
                stopping = multiprocess.any_of(stop_signal())
                if stopping or schedule.is_due(schedule.checkpoint_every, before, step):
                    log.save(state, step)
                if stopping:
                    raise Interrupted(stopping, step)
    return Outcome(state, step, log.history)


def _check_finite(row: dict[str, Any], log: RunLog, advice: str) -> None:
    if not all(map(math.isfinite, row.values())):
        raise UserError(
            "the loss or its gradient is not a finite number at step "
            f"{row['step']}{log.last_good()}; {advice}"
        )


def _show(bar: tqdm, shown: dict[str, str], row: dict[str, Any], length: int) -> None:
    """Moves the progress bar by a chunk; ``shown`` keeps the last validation."""
    shown["loss"] = f"{row['loss']:.4f}"
    if "validation_accuracy" in row:
        shown["validation"] = f"{row['validation_accuracy']:.3f}"
    bar.update(length)
    bar.set_postfix(shown)


def _line(row: dict[str, Any], steps: int, metric: str) -> str:
    """A log line, for where the output is not a terminal."""
    text = f"step {row['step']} of {steps}, loss {row['loss']:.4f}"
    if "validation_accuracy" in row:
        text += f", validation {metric} {100 * row['validation_accuracy']:.1f} %"
    return text
