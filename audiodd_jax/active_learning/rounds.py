"""The active-learning loop: train, score the pool, label, repeat.

A round trains a network on the labelled clips, tests it, and queries the clips to label
for the next round. Only labels of queried clips are read. Randomness is ``fold_in(root,
purpose, round)``: every acquisition function starts from the same seed set and
networks, and a resumed run equals an uninterrupted one.
"""

import functools
import hashlib
import logging
import shutil
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from audiodd_jax.active_learning import budgets, query
from audiodd_jax.config import Config, fields, presets
from audiodd_jax.config.names import TRAINING
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.networks import models
from audiodd_jax.networks.inference import Network
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
      network: of the last round, if the next one starts from it, else None.
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
      config: model, training, acquisition and the seed.
      data: the prepared dataset; its training clips are the pool.
      run: the run directory; None: memory only.

    Raises:
      UserError: settings that the data does not allow.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    settings = config.active
    labels = data.train.labels
    counted = len(data.validation.labels) if settings.count_validation else 0
    model = models.make(
        config.model, data.num_classes, jnp.dtype(config.training.precision)
    )
    _check(config, model)
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
    first = query.seed_set(
        jax.random.fold_in(key, _SEED_SET),
        labels,
        plan[0],
        data.class_names,
        settings.initial_draw,
    )
    state = State(
        jnp.int32(0),
        key,
        jnp.full(len(labels), -1, jnp.int32).at[: plan[0]].set(first),
        jnp.int32(plan[0]),
        _blank(model, data, config) if settings.warm_start else None,
    )
    with RunLog(run) as log, deferred_signals() as stop_signal:
        done, state = log.resume(state)

        def heed() -> None:
            if stop_signal():
                raise Interrupted(stop_signal(), done)

        made = programs.make(config.model, config.training, data)
        choose = query.make_choose(
            settings,
            model,
            data.train,
            heed,
            data.num_classes,
            jax.random.fold_in(key, _EMBEDDING),
        )
        while done < len(plan):
            fitted, row = _round(config, data, made, state, run, counted)
            began = time.perf_counter()
            if done + 1 < len(plan):
                state = _labelled(state, choose, fitted, plan[done + 1])
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
                # They are needed only to resume the round's training.
                shutil.rmtree(_folder(run, done - 1) / "checkpoints", True)
            heed()
        return Learnt(state.labelled, log.history)


def _labelled(
    state: State, choose: Callable[..., Array], fitted: fit.Fitted, count: int
) -> State:
    """The state with ``count`` labelled clips."""
    keys = _folded(state, _PASSES), _folded(state, _CHOICE)
    with progress.waiting("choosing clips to label"):
        chosen = choose(fitted.networks, state.labelled, count, *keys)
    order = state.order.at[int(state.count) : count].set(chosen)
    return state._replace(order=order, count=jnp.int32(count))


def _check(config: Config, model: nn.Module) -> None:
    """Checks settings that do not depend on the data."""
    if config.training.seeds != 1:
        raise UserError(
            "active learning trains one network per round: --config.training.seeds=1; "
            "use --num_seeds for more runs"
        )
    name = config.active.acquisition
    if query.uses_passes(name) and not model.dropout:
        raise UserError(
            f"{name} scores clips by MC-dropout, which needs --config.model.dropout "
            "above 0, or in a network of your own a call that takes drop"
        )


def _blank(model: nn.Module, data: Dataset, config: Config) -> Network:
    """A placeholder for the network of the last round."""
    init = functools.partial(models.init, model=model, image_shape=data.image_shape)
    shapes = jax.eval_shape(init, jax.random.key(0))
    zeros = jax.tree.map(lambda x: jnp.zeros((1, *x.shape), x.dtype), shapes)
    return Network(zeros, zeros if config.training.centre_outputs else None)


def _folder(run: RunDirectory, index: int) -> Any:
    return run.path / "rounds" / f"{index + 1:02d}"


def _round(
    config: Config,
    data: Dataset,
    made: programs.Programs,
    state: State,
    run: RunDirectory | None,
    counted: int,
) -> tuple[fit.Fitted, dict[str, Any]]:
    """Trains on the labelled clips and tests; the networks and the round's row."""
    rows, index = state.labelled, int(state.round)
    bits = jax.random.bits(_folded(state, _NETWORK), dtype=jnp.uint32)
    own = fields.replace(config, {"seed": int(bits)})
    training = fit.real_set(data.train, data.num_classes, own.training, rows)
    start = state.network if config.active.warm_start and index else None
    if run is None:
        fitted = fit.fit(made, training, own.seed, start=start)
    else:
        digest = hashlib.sha256(rows.tobytes()).hexdigest()[:16]
        record = fields.record(own, TRAINING)
        record["rows"] = digest
        options = presets.run_options(own, TRAINING)
        with RunDirectory(_folder(run, index), record, **options) as inner:
            fitted = fit.fit(made, training, own.seed, inner, start)
        networks_file.save(
            run.path / "networks.npz", fitted.networks, data, config.model
        )
    scores = evaluation.networks(fitted, data.test, config.model.name, data.num_classes)
    counts = tags.counts(np.asarray(data.train.labels)[rows], data.num_classes)
    what = "average_precision" if data.has_tags else "accuracy"
    last = fitted.history[-1]
    validated = {
        name: last[name]
        for name in ("validation_accuracy", "validation_loss")
        if name in last
    }
    return fitted, {
        "labelled": int(rows.size),
        "counted": int(rows.size) + counted,
        "fraction": (int(rows.size) + counted) / data.num_train,
        "test_accuracy": scores.mean,
        "macro_f1": scores.macro_f1,
        **validated,
        "class_counts": counts.tolist(),
        f"per_class_{what}": [None if np.isnan(a) else a for a in scores.per_class],
        "training_steps": fitted.steps,
        "training_seconds": last["seconds"],
    }


def _folded(state: State, purpose: int) -> Key[Array, ""]:
    return jax.random.fold_in(jax.random.fold_in(state.key, purpose), state.round)
