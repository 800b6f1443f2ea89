"""The loop of every distillation method: chunks of steps, validation, checkpoints.

``log_every`` steps run as one compiled scan whose state is donated; nothing crosses to
the host inside. Randomness is ``fold_in(root, step)``, so that a run that was killed
and resumed from its last checkpoint ends with the bits of the uninterrupted one.
"""

import contextlib
import functools
import logging
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key, Num
from tqdm import tqdm

from audiodd_jax.config import Config
from audiodd_jax.distillation import coreset, rfad
from audiodd_jax.distillation.coreset import CoresetArrays, Method
from audiodd_jax.features import batches
from audiodd_jax.features.augment import augment
from audiodd_jax.features.batches import Streamed
from audiodd_jax.features.normalize import Normalization
from audiodd_jax.features.prepared import DeviceSplit, HostSplit, Prepared, Split
from audiodd_jax.kernels import regression
from audiodd_jax.runtime.checkpoints import Checkpoints
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.runtime.interrupt import Interrupted, noted_signals
from audiodd_jax.runtime.runs import RunDirectory

_log = logging.getLogger(__name__)

METHODS: dict[str, Callable[[Config], Method]] = {"rfad": rfad.make}

# What each stream of randomness is folded with, under the run's seed.
_INITIAL, _METHOD, _BATCH, _VALIDATION = range(4)


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


def make_chunk(
    method: Method,
    key: Key[Array, ""],
    stats: Normalization,
    config: Config,
    noise: Num[Array, "pieces f t"] | None = None,
) -> Callable[[Any, Split | DeviceSplit | Streamed, int], tuple[Any, dict[str, Array]]]:
    """``chunk(state, data, length)``: ``length`` steps, jitted, the state donated.

    ``data`` is the whole training split, from which every step draws its batch, or the
    streamed batches of just these steps. Returns the state and the metrics' means over
    the chunk.
    """
    size = config.loop.batch_size

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def chunk(
        state: Any, data: Split | DeviceSplit | Streamed, length: int
    ) -> tuple[Any, dict[str, Array]]:
        def body(state: Any, drawn: Streamed | None) -> tuple[Any, dict[str, Array]]:
            index_key, augment_key = batches.step_keys(key, state.step)
            if drawn is None:
                batch = batches.gather(index_key, data, size)
            else:
                batch = batches.standardized(drawn, stats)
            images = augment(augment_key, batch.images, config.augment, stats, noise)
            return method.step(state, batch._replace(images=images))

        drawn = data if isinstance(data, Streamed) else None
        state, metrics = lax.scan(body, state, drawn, length=length)
        return state, jax.tree.map(jnp.mean, metrics)

    return chunk


def make_validate(
    key: Key[Array, ""], data: Split, config: Config
) -> Callable[[CoresetArrays], regression.Score] | None:
    """Scores a coreset on held-out clips with networks that stay the same.

    None where nothing is held out.
    """
    if not data.labels.size:
        return None
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
    state = LoopState(
        method.init(stream(_METHOD), _copy(start)),
        _copy(start),
        jnp.int32(0),
        *_worst(),
    )
    if config.augment.background and data.noise is None:
        raise UserError(
            f"--config.augment.background needs background noise, and {data.name} "
            "brings none"
        )
    chunk = make_chunk(method, stream(_BATCH), data.normalization, config, data.noise)
    validate = make_validate(stream(_VALIDATION), data.validation, config)
    settings = config.loop
    with contextlib.ExitStack() as stack:
        journal = stack.enter_context(_Journal(run))
        step, state = journal.resume(state)
        if not journal.history:
            row = {"step": 0}
            state = _keep_best(state, method, validate, row)
            journal.record(row)
            journal.save(state, 0)
        bar = tqdm(
            total=settings.steps,
            initial=step,
            desc=config.method,
            unit="step",
            disable=None,  # where nobody looks at it
        )
        stack.enter_context(bar)
        stop_signal = stack.enter_context(noted_signals())
        # Chunks end on multiples of log_every, so that a resumed run has the same ones.
        drawn = None
        if isinstance(data.train, HostSplit):
            sizes = (settings.batch_size, step, settings.steps, settings.log_every)
            drawn = batches.stream(data.train, stream(_BATCH), *sizes)
        while step < settings.steps and not _waits_in_vain(state, step, config):
            length = min(settings.log_every, settings.steps - step)
            part = next(drawn) if drawn else data.train
            method_state, metrics = chunk(state.method, part, length)
            state = state._replace(method=method_state)
            before, step = step, step + length
            crosses = lambda every, a=before, b=step: every and b // every > a // every
            row = {"step": step, **{k: float(v) for k, v in metrics.items()}}
            if not all(map(math.isfinite, row.values())):
                raise UserError(
                    f"the loss or its gradient is not a finite number at step {step}"
                    f"{journal.last_good()}; lower --config.optimizer.learning_rate or "
                    "raise --config.rfad.regularizer"
                )
            last = step == settings.steps
            if last or crosses(settings.eval_every):
                state = _keep_best(state, method, validate, row)
                if bar.disable:
                    _log.info(_progress(row, settings.steps))
            journal.record(row)
            bar.update(length)
            bar.set_postfix(
                loss=f"{row['loss']:.4f}",
                validation=f"{float(state.best_accuracy):.3f}",
            )
            stopping = stop_signal()
            if last or stopping or crosses(settings.checkpoint_every):
                journal.save(state, step)
            if stopping:
                raise Interrupted(stopping, step)
    return Distilled(start, state.best, int(state.best_step), step, journal.history)


def _worst() -> regression.Score:
    """Worse than any coreset's."""
    return regression.Score(jnp.float32(-1), jnp.float32(jnp.inf))


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def _keep_best(
    state: LoopState,
    method: Method,
    validate: Callable[[CoresetArrays], regression.Score] | None,
    row: dict[str, Any],
) -> LoopState:
    """Validates the coreset into ``row``, and keeps it if no better one was kept."""
    candidate = method.coreset(state.method)
    score = _worst()
    if validate:
        score = validate(candidate)
        row["validation_accuracy"] = float(score.accuracy)
        row["validation_loss"] = float(score.loss)
    rank = lambda accuracy, loss: (float(accuracy), -float(loss))
    if rank(*score) < rank(state.best_accuracy, state.best_loss):
        return state
    row["best"] = True
    return LoopState(state.method, _copy(candidate), jnp.int32(row["step"]), *score)


def _waits_in_vain(state: LoopState, step: int, config: Config) -> bool:
    """Whether early stopping is on, and its patience is at an end."""
    patience = config.loop.patience * config.loop.eval_every
    return 0 < patience <= step - int(state.best_step)


class _Journal:
    """Metrics and checkpoints of a run; in memory alone where there is no directory."""

    def __init__(self, run: RunDirectory | None):
        self._run = run
        self._checkpoints = Checkpoints(run.path / "checkpoints") if run else None
        self._began = time.perf_counter()
        self._elapsed = 0.0
        self.history: list[dict[str, Any]] = []

    def __enter__(self) -> "_Journal":
        return self

    def __exit__(self, *_: object) -> None:
        if self._checkpoints:
            self._checkpoints.close()

    def resume(self, state: LoopState) -> tuple[int, LoopState]:
        """The step and state to go on from: the last checkpoint's, else the first."""
        if not self._run:
            return 0, state
        saved = self._checkpoints.latest()
        if saved is not None:
            state = self._checkpoints.restore(saved, state)
            _log.info("resuming %s from step %d", self._run.path, saved)
        self._run.start_from(-1 if saved is None else saved)
        self.history = self._run.history()
        if self.history:
            self._elapsed = self.history[-1]["seconds"]
        return saved or 0, state

    def record(self, row: dict[str, Any]) -> None:
        seconds = self._elapsed + time.perf_counter() - self._began
        row = {**row, "seconds": round(seconds, 3)}
        self.history.append(row)
        if self._run:
            self._run.log(row)

    def save(self, state: LoopState, step: int) -> None:
        if self._checkpoints:
            self._checkpoints.save(step, state)

    def last_good(self) -> str:
        if not self._checkpoints:
            return ""
        path = self._checkpoints.path(self._checkpoints.latest() or 0)
        return f"; the last good state is {path}"


def _progress(row: dict[str, Any], steps: int) -> str:
    text = f"step {row['step']} of {steps}, loss {row['loss']:.4f}"
    if "validation_accuracy" in row:
        text += f", validation accuracy {100 * row['validation_accuracy']:.1f} %"
    return text
