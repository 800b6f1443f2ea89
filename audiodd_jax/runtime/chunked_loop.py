"""Metrics and checkpoints of a run, and the loop of chunks that writes them."""

import contextlib
import logging
import math
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from jaxtyping import Array
from tqdm import tqdm

from audiodd_jax.runtime import multiprocess
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.runtime.run_log import RunLog
from audiodd_jax.runtime.signals import Interrupted, noted_signals

_log = logging.getLogger(__name__)


class Schedule(NamedTuple):
    """How long a run is, and how often what happens, in steps.

    Attributes:
      steps: in all.
      log_every: in one compiled chunk.
      eval_every: between validations; 0: only at the end.
      checkpoint_every: between checkpoints.
    """

    steps: int
    log_every: int
    eval_every: int
    checkpoint_every: int


class Job(NamedTuple):
    """What a run does, chunk by chunk.

    Attributes:
      name: shown beside the progress bar.
      begin: ``step -> advance``, where ``advance(state, length)`` takes that many
        steps and returns the state and metrics, and ``step`` is the first one's number.
      review: ``(state, row) -> state``: validates into the row, keeps what is best.
      is_done: ``(state, step) -> bool``: whether to stop early.
      advice: what to change where the loss is not a number.
    """

    name: str
    begin: Callable[[int], Callable[[Any, int], tuple[Any, dict[str, Array]]]]
    review: Callable[[Any, dict[str, Any]], Any]
    is_done: Callable[[Any, int], bool]
    advice: str


class Outcome(NamedTuple):
    """Where a run ended.

    Attributes:
      state: the last.
      step: steps taken, fewer than asked for if it stopped early.
      history: a row a chunk.
    """

    state: Any
    step: int
    history: list[dict[str, Any]]


class Asked(NamedTuple):
    """Steps that a run wants to be taken.

    Attributes:
      step: the last that it has taken.
      state: after it.
      length: steps to take.
    """

    step: int
    state: Any
    length: int


# A run that asks for steps, is sent the state and metrics after them, and ends with its
# outcome.
Driven = Generator[Asked, tuple[Any, dict[str, Array]], Outcome]


def drive(
    job: Job, state: Any, schedule: Schedule, run: RunDirectory | None = None
) -> Outcome:
    """Runs a job to its end, from where it was cut if it was.

    Chunks end on multiples of ``log_every``, so that a resumed run has the same ones.

    Args:
      job: what to do.
      state: an array pytree to start from.
      schedule: how long, and how often what.
      run: where to record, checkpoint and resume; None keeps all in memory.

    Raises:
      UserError: a loss that is not a number.
      Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    advance, taken = None, None
    with (
        noted_signals() as stop_signal,
        contextlib.closing(driven(job, state, schedule, run, stop_signal)) as work,
    ):
        try:
            while True:
                asked = work.send(taken)
                advance = advance or job.begin(asked.step)
                taken = advance(asked.state, asked.length)
        except StopIteration as end:
            return end.value


def driven(
    job: Job,
    state: Any,
    schedule: Schedule,
    run: RunDirectory | None,
    stop_signal: Callable[[], int],
) -> Driven:
    """``drive`` as a coroutine: who holds it takes the steps, of several runs at once.

    Args:
      job: what to do, ``begin`` apart.
      state: an array pytree to start from.
      schedule: how long, and how often what.
      run: where to record, checkpoint and resume; None keeps all in memory.
      stop_signal: the signal that came, or 0.

    Raises:
      UserError: a loss that is not a number.
      Interrupted: ``stop_signal`` told of one; the state is saved.
    """
    with RunLog(run) as journal:
        step, state = journal.resume(state)
        if not journal.history:
            row: dict[str, Any] = {"step": 0}
            state = job.review(state, row)
            journal.record(row)
            journal.save(state, 0)
        # Where nobody looks at it, no bar is drawn; of several processes one draws.
        bar = tqdm(
            total=schedule.steps,
            initial=step,
            desc=job.name,
            unit="step",
            disable=None if multiprocess.is_lead() else True,
        )
        shown = {}
        with bar:
            while step < schedule.steps and not job.is_done(state, step):
                length = min(schedule.log_every, schedule.steps - step)
                state, metrics = yield Asked(step, state, length)
                before, step = step, step + length
                crosses = lambda every, a=before, b=step: (
                    every and b // every > a // every
                )
                row = {"step": step, **{k: float(v) for k, v in metrics.items()}}
                if not all(map(math.isfinite, row.values())):
                    raise UserError(
                        "the loss or its gradient is not a finite number at step "
                        f"{step}{journal.last_good()}; {job.advice}"
                    )
                last = step == schedule.steps
                if last or crosses(schedule.eval_every):
                    state = job.review(state, row)
                    if bar.disable and multiprocess.is_lead():
                        _log.info(_progress(row, schedule.steps))
                journal.record(row)
                bar.update(length)
                shown["loss"] = f"{row['loss']:.4f}"
                if "validation_accuracy" in row:
                    shown["validation"] = f"{row['validation_accuracy']:.3f}"
                bar.set_postfix(shown)
                stopping = multiprocess.any_of(stop_signal())
                if last or stopping or crosses(schedule.checkpoint_every):
                    journal.save(state, step)
                if stopping:
                    raise Interrupted(stopping, step)
        return Outcome(state, step, journal.history)


def _progress(row: dict[str, Any], steps: int) -> str:
    text = f"step {row['step']} of {steps}, loss {row['loss']:.4f}"
    if "validation_accuracy" in row:
        text += f", validation accuracy {100 * row['validation_accuracy']:.1f} %"
    return text
