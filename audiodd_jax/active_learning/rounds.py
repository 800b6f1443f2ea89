"""The active-learning loop: train, score the pool, label, repeat.

A round trains a network on the labelled clips, tests it, and queries the clips to label
for the next round. Only labels of queried clips are read. Randomness is ``fold_in(root,
purpose, round)``: every acquisition function starts from the same seed set and
networks, and a resumed run equals an uninterrupted one.
"""

import contextlib
import functools
import hashlib
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from audiodd_jax.active_learning import budgets, query
from audiodd_jax.config import ActiveConfig, Config, fields, presets
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.networks import models
from audiodd_jax.networks.models import Network
from audiodd_jax.runtime import progress
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.runtime.run_log import RunLog
from audiodd_jax.runtime.signals import Interrupted, deferred_signals
from audiodd_jax.training import evaluation, fit, networks_file, programs

_log = logging.getLogger(__name__)

# Streams of randomness, folded into the run's key.
_SEED_SET, _NETWORK, _PASSES, _CHOICE, _EMBEDDING = range(5)


class State(NamedTuple):
    """Everything that a resumed run needs.

    Attributes:
      round: ``[]`` finished rounds.
      key: the run's root key.
      order: ``[b]`` rows of the pool in the order of labelling, padded with -1.
      count: ``[]`` number of labelled clips.
      network: network of the last round if the next one starts from it, else None.
    """

    round: Int[Array, ""]
    key: Key[Array, ""]
    order: Int[Array, " b"]
    count: Int[Array, ""]
    network: Network | None

    @property
    def labelled(self) -> Int[np.ndarray, " l"]:
        """Rows of the labelled clips, in the order of labelling."""
        return np.asarray(self.order[: int(self.count)])

    def key_of(self, stream: int) -> Key[Array, ""]:
        """The key of a stream of randomness in this round."""
        return jax.random.fold_in(jax.random.fold_in(self.key, stream), self.round)


class Learnt(NamedTuple):
    """A finished run.

    Attributes:
      labelled: rows of the labelled clips, in the order of labelling.
      rounds: one row per round: labelled clips, scores, seconds.
    """

    labelled: Int[np.ndarray, " l"]
    rounds: list[dict[str, Any]]


def label_rounds(
    config: Config, data: Dataset, run: RunDirectory | None = None
) -> Learnt:
    """Labels clips of ``data.train`` round by round, up to the last budget.

    Args:
      data: the dataset; its training clips are the pool.
      run: the run directory; None: memory only.

    Raises:
      UserError: settings that the data does not allow.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    settings, labels = config.active, data.train.labels
    counted = len(data.validation.labels) if settings.count_validation else 0
    model = models.make(
        config.model, data.num_classes, jnp.dtype(config.training.precision)
    )
    _check(settings.acquisition, model, config.training.seeds)
    plan = budgets.plan(
        settings.budgets,
        settings.initial,
        settings.batch,
        num_train=data.num_train,
        num_classes=data.num_classes,
        pool=len(labels),
        counted=counted,
    )
    key = jax.random.key(config.seed)
    state = _first_state(key, plan[0], config.active, data)
    if settings.warm_start:
        blank = _blank(model, data.image_shape, config.training.centre_outputs)
        state = state._replace(network=blank)
    log = RunLog(run)
    with deferred_signals() as stop_signal:
        done, state = log.resume(state)

        def stop_if_asked() -> None:
            if stop_signal():
                raise Interrupted(stop_signal(), done)

        record = fields.record(config, fields.TRAINING)
        options = presets.run_options(config, fields.TRAINING)
        open_run = functools.partial(_open_run, run, record, options)
        compiled = programs.make(config.model, config.training, data)
        choose = query.make_choose(
            settings,
            model,
            data.train,
            stop_if_asked,
            data.num_classes,
            jax.random.fold_in(key, _EMBEDDING),
        )
        while done < len(plan):
            start = state.network if settings.warm_start and done else None
            fitted, row = _round(data, compiled, state, start, open_run)
            if run:
                networks_file.save(
                    run.path / "networks.npz", fitted.networks, data, config.model
                )
            row["counted"] = row["labelled"] + counted
            row["fraction"] = row["counted"] / data.num_train
            began = time.perf_counter()
            if done + 1 < len(plan):
                state = _label(state, choose, fitted, plan[done + 1])
            row["scoring_seconds"] = round(time.perf_counter() - began, 3)
            network = fitted.networks if settings.warm_start else None
            state = state._replace(round=state.round + 1, network=network)
            done += 1
            _log.info(
                "round %d of %d: %s clips, test %s %.1f %%",
                done,
                len(plan),
                f"{row['labelled']:,}",
                data.metric,
                100 * row["test_accuracy"],
            )
            log.record({"step": done, **row})
            log.save(state, done)
            if run:
                # The checkpoints only serve to resume the round's training.
                shutil.rmtree(_folder(run, done) / "checkpoints", True)
            stop_if_asked()
        return Learnt(state.labelled, log.history)


def _first_state(
    key: Key[Array, ""], count: int, config: ActiveConfig, data: Dataset
) -> State:
    """The state with the labelled seed set."""
    labels = data.train.labels
    first = query.seed_set(
        jax.random.fold_in(key, _SEED_SET),
        labels,
        count,
        data.class_names,
        config.initial_draw,
    )
    order = jnp.full(len(labels), -1, jnp.int32).at[:count].set(first)
    return State(jnp.int32(0), key, order, jnp.int32(count), None)


def _label(
    state: State, choose: Callable[..., Array], fitted: fit.Fitted, count: int
) -> State:
    """Labels clips of the pool until ``count`` are labelled."""
    keys = state.key_of(_PASSES), state.key_of(_CHOICE)
    with progress.waiting("choosing clips to label"):
        chosen = choose(fitted.networks, state.labelled, count, *keys)
    order = state.order.at[int(state.count) : count].set(chosen)
    return state._replace(order=order, count=jnp.int32(count))


def _check(acquisition: str, model: nn.Module, seeds: int) -> None:
    """Checks settings that do not depend on the data."""
    if seeds != 1:
        raise UserError(
            "active learning trains one network per round: --config.training.seeds=1; "
            "use --num_seeds for more runs"
        )
    if query.uses_passes(acquisition) and not model.dropout:
        raise UserError(
            f"{acquisition} scores clips by MC-dropout, which needs "
            "--config.model.dropout above 0, or for your own network a call method "
            "that takes drop"
        )


def _blank(model: nn.Module, image_shape: tuple[int, int], is_centred: bool) -> Network:
    """A placeholder for the network of the last round."""
    init = functools.partial(models.init, model=model, image_shape=image_shape)
    shapes = jax.eval_shape(init, jax.random.key(0))
    zeros = jax.tree.map(lambda x: jnp.zeros((1, *x.shape), x.dtype), shapes)
    return Network(zeros, zeros if is_centred else None)


def _folder(run: RunDirectory, number: int) -> Path:
    """The run directory of a round's training; rounds are numbered from 1."""
    return run.path / "rounds" / f"{number:02d}"


def _round(
    data: Dataset,
    compiled: programs.Programs,
    state: State,
    start: Network | None,
    open_run: Callable[..., contextlib.AbstractContextManager[RunDirectory | None]],
) -> tuple[fit.Fitted, dict[str, Any]]:
    """Trains on the labelled clips and tests; returns the networks and a row.

    ``open_run(number, seed, rows)`` opens the run directory of the round's training.
    """
    rows, number = state.labelled, int(state.round) + 1
    seed = int(jax.random.bits(state.key_of(_NETWORK), dtype=jnp.uint32))
    settings, name = compiled.settings, compiled.name
    training_set = fit.real_set(data.train, data.num_classes, settings, rows)
    with open_run(number, seed, rows) as run:
        fitted = fit.fit(compiled, training_set, seed, run, start=start)
    scores = evaluation.networks(fitted, data.test, name, data.num_classes)
    counts = tags.counts(np.asarray(data.train.labels)[rows], data.num_classes)
    metric = "average_precision" if data.has_tags else "accuracy"
    last = fitted.history[-1]
    validation = ("validation_accuracy", "validation_loss")
    return fitted, {
        "labelled": int(rows.size),
        "test_accuracy": scores.mean,
        "macro_f1": scores.macro_f1,
        **{name: last[name] for name in validation if name in last},
        "class_counts": counts.tolist(),
        f"per_class_{metric}": [None if np.isnan(a) else a for a in scores.per_class],
        "training_steps": fitted.steps,
        "training_seconds": last["seconds"],
    }


def _open_run(
    run: RunDirectory | None,
    record: dict[str, Any],
    options: dict[str, Any],
    number: int,
    seed: int,
    rows: Int[np.ndarray, " l"],
) -> contextlib.AbstractContextManager[RunDirectory | None]:
    """Opens the run directory of a round's training, in the directory of the run."""
    if run is None:
        return contextlib.nullcontext()
    digest = hashlib.sha256(rows.tobytes()).hexdigest()[:16]
    record = {**record, "seed": seed, "rows": digest}
    return RunDirectory(_folder(run, number), record, **options)
