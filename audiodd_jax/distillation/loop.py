"""The loop of every distillation method: chunks of steps, validation, checkpoints.

``log_every`` steps run as one compiled scan whose state is donated; nothing crosses to
the host inside. Randomness is ``fold_in(root, step)``, so that a run that was killed
and resumed from its last checkpoint ends with the bits of the uninterrupted one.
"""

import functools
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key
from tqdm import tqdm

from audiodd_jax.config import Config
from audiodd_jax.distillation import coreset, rfad
from audiodd_jax.distillation.coreset import CoresetArrays, Method
from audiodd_jax.features.augment import augment
from audiodd_jax.features.prepared import Prepared, Split
from audiodd_jax.kernels import regression
from audiodd_jax.runtime.checkpoints import Checkpoints
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.runtime.runs import RunDirectory

_log = logging.getLogger(__name__)

METHODS: dict[str, Callable[[Config], Method]] = {"rfad": rfad.make}

# What each stream of randomness is folded with, under the run's seed.
_INITIAL, _METHOD, _BATCH, _VALIDATION = range(4)


class Interrupted(Exception):  # noqa: N818 (it is no error)
    """The run was asked to stop, and saved its state."""

    def __init__(self, signum: int, step: int):
        """Args: the signal's number, and the step that was saved."""
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}")
        self.signum = signum
        self.step = step


class LoopState(NamedTuple):
    """Everything that a resumed run needs.

    Attributes:
      method: the method's own state.
      best: the best coreset so far, by validation.
      best_step: ``[]`` when it was reached.
      best_accuracy: ``[]`` on the validation clips.
      best_loss: ``[]`` on the validation clips; decides between equal accuracies.
    """

    method: Any
    best: CoresetArrays
    best_step: Int[Array, ""]
    best_accuracy: Float[Array, ""]
    best_loss: Float[Array, ""]


class Distilled(NamedTuple):
    """The outcome of a run.

    Attributes:
      start: the coreset that it started from.
      best: the best by validation (the last, where nothing is held out).
      best_step: when it was reached.
      steps: steps taken, fewer than asked for if it stopped early.
      history: a row a chunk.
    """

    start: CoresetArrays
    best: CoresetArrays
    best_step: int
    steps: int
    history: list[dict[str, Any]]


def draw_batch(
    key: Key[Array, ""], data: Split, std: Float[Array, " f"], config: Config
) -> Split:
    """A batch without replacement, augmented; the whole split where it is smaller."""
    index_key, augment_key = jax.random.split(key)
    size = min(config.loop.batch_size, data.labels.size)
    indices = jax.random.permutation(index_key, data.labels.size)[:size]
    images = augment(augment_key, data.images[indices], config.augment, std)
    return Split(images, data.labels[indices])


def make_chunk(
    method: Method, key: Key[Array, ""], std: Float[Array, " f"], config: Config
) -> Callable[[Any, Split, int], tuple[Any, dict[str, Array]]]:
    """``chunk(state, data, length)``: ``length`` steps, jitted, the state donated.

    Returns the state and the metrics' means over the chunk.
    """

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def chunk(state: Any, data: Split, length: int) -> tuple[Any, dict[str, Array]]:
        def body(state: Any, _: None) -> tuple[Any, dict[str, Array]]:
            batch_key = jax.random.fold_in(key, state.step)
            return method.step(state, draw_batch(batch_key, data, std, config))

        state, metrics = lax.scan(body, state, length=length)
        return state, jax.tree.map(jnp.mean, metrics)

    return chunk


def make_validate(
    key: Key[Array, ""], data: Split, config: Config
) -> Callable[[CoresetArrays], regression.Score]:
    """Scores a coreset on held-out clips with networks that stay the same."""
    settings = config.evaluation

    @jax.jit
    def validate(arrays: CoresetArrays, data: Split) -> regression.Score:
        predictions = regression.predict(
            key,
            data.images,
            arrays.images,
            arrays.labels,
            num_networks=settings.networks,
            config=config.network,
            regularizer=config.rfad.regularizer,
            chunk=settings.batch_size,
        )
        return regression.score(predictions, data.labels)

    return lambda arrays: validate(arrays, data)


@contextmanager
def _stop_requested() -> Iterator[Callable[[], int]]:
    """Yields a function that tells the signal received (0: none) while it lasts."""
    received: list[int] = []
    # Signals reach the main thread alone; elsewhere there is nothing to install.
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    handle = lambda signum, frame: received.append(signum)
    before = {s: signal.signal(s, handle) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: received[0] if received else 0
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def distill(
    config: Config, data: Prepared, run: RunDirectory | None = None
) -> Distilled:
    """Runs ``config.method`` on ``data`` to a coreset.

    Args:
      config: the run's configuration.
      data: the prepared dataset; its test split is never touched.
      run: where to record, checkpoint and resume; None keeps all in memory.

    Raises:
      UserError: settings that the data cannot serve, or a loss that is not a number.
      Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    method = METHODS[config.method](config)
    root = jax.random.key(config.seed)
    stream = lambda name: jax.random.fold_in(root, name)
    start = coreset.initial(
        stream(_INITIAL), data.train, data.class_names, config.coreset
    )
    # A method's state is donated: what outlives it must not share its buffers.
    copy = lambda tree: jax.tree.map(jnp.copy, tree)
    has_validation = data.validation.labels.size > 0
    validate = make_validate(stream(_VALIDATION), data.validation, config)
    std = jnp.asarray(data.normalization.std)
    chunk = make_chunk(method, stream(_BATCH), std, config)

    worst = regression.Score(jnp.float32(-1), jnp.float32(jnp.inf))
    state = LoopState(
        method.init(stream(_METHOD), copy(start)), copy(start), jnp.int32(0), *worst
    )
    checkpoints = Checkpoints(run.path / "checkpoints") if run else None
    history: list[dict[str, Any]] = []
    step = 0
    if run:
        saved = checkpoints.latest()
        if saved is not None:
            step, state = saved, checkpoints.restore(saved, state)
            _log.info("resuming %s from step %d", run.path, step)
        run.start_from(-1 if saved is None else saved)
        history = run.history()
    elapsed = history[-1]["seconds"] if history else 0.0
    began = time.perf_counter()

    def record(row: dict[str, Any]) -> None:
        row = {**row, "seconds": round(elapsed + time.perf_counter() - began, 3)}
        history.append(row)
        if run:
            run.log(row)

    def consider(state: LoopState, row: dict[str, Any]) -> LoopState:
        """Validates the coreset, and keeps it if it is no worse than the best."""
        candidate = method.coreset(state.method)
        score = validate(candidate) if has_validation else worst
        if has_validation:
            row["validation_accuracy"] = float(score.accuracy)
            row["validation_loss"] = float(score.loss)
        rank = lambda accuracy, loss: (float(accuracy), -float(loss))
        if rank(*score) < rank(state.best_accuracy, state.best_loss):
            return state
        row["best"] = True
        return LoopState(state.method, copy(candidate), jnp.int32(row["step"]), *score)

    def save(state: LoopState, step: int) -> None:
        if run:
            checkpoints.save(step, state)

    if not history:
        row = {"step": 0}
        state = consider(state, row)
        record(row)
        save(state, 0)

    settings = config.loop
    crosses = lambda every, before, now: every > 0 and now // every > before // every
    bar = tqdm(
        total=settings.steps,
        initial=step,
        desc=config.method,
        unit="step",
        disable=None,  # where nobody looks at it
    )
    with bar, _stop_requested() as stop_signal:
        while step < settings.steps:
            length = min(settings.log_every, settings.steps - step)
            method_state, metrics = chunk(state.method, data.train, length)
            state = state._replace(method=method_state)
            before, step = step, step + length
            row = {"step": step, **{k: float(v) for k, v in metrics.items()}}
            if not math.isfinite(row["loss"]):
                _refuse_nan(step, checkpoints)
            last = step == settings.steps
            if last or crosses(settings.eval_every, before, step):
                state = consider(state, row)
                if bar.disable:
                    _log.info(_progress(row, settings.steps))
            record(row)
            bar.update(length)
            bar.set_postfix(
                loss=f"{row['loss']:.4f}", best=f"{float(state.best_accuracy):.3f}"
            )
            waited = step - int(state.best_step)
            patience = settings.patience * settings.eval_every
            early = 0 < patience <= waited and has_validation
            stopping = stop_signal()
            if (
                last
                or early
                or stopping
                or crosses(settings.checkpoint_every, before, step)
            ):
                save(state, step)
            if stopping:
                raise Interrupted(stopping, step)
            if early:
                _log.info("no better validation for %d steps: stopping", waited)
                break
    if checkpoints:
        checkpoints.close()
    return Distilled(start, state.best, int(state.best_step), step, history)


def _progress(row: dict[str, Any], steps: int) -> str:
    text = f"step {row['step']} of {steps}, loss {row['loss']:.4f}"
    if "validation_accuracy" in row:
        text += f", validation accuracy {100 * row['validation_accuracy']:.1f} %"
    return text


def _refuse_nan(step: int, checkpoints: Checkpoints | None) -> None:
    kept = ""
    if checkpoints:
        kept = f"; the last good state is {checkpoints.path(checkpoints.latest() or 0)}"
    raise UserError(
        f"the loss is not a finite number at step {step}{kept}; lower "
        "--config.optimizer.learning_rate or raise --config.rfad.regularizer"
    )
