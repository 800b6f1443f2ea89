"""The active-learning loop: train, score the pool, label, repeat.

A round trains a network on the labelled clips, tests it, and queries the clips to label
for the next round. Their labels come from an annotator, which in an experiment reads
the truth; a person's session (``session.py``) trains and chooses by the same functions.
Randomness is ``fold_in(root, purpose, round)``: every acquisition function starts from
the same seed set and networks, and a resumed run equals an uninterrupted one.
"""

import contextlib
import dataclasses
import hashlib
import logging
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from audiodd_jax.active_learning import query
from audiodd_jax.config import ActiveConfig, Config, fields, presets
from audiodd_jax.config.names import COMMITTEE
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.features import batches, dataset, metric
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.networks.models import Network
from audiodd_jax.runtime import progress
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.runtime.signals import Interrupted, deferred_signals
from audiodd_jax.runtime.train_loop import RunLog
from audiodd_jax.training import evaluation, fit, networks_file, programs

_log = logging.getLogger(__name__)

# Streams of randomness, folded into the run's key.
_SEED_SET, NETWORK, PASSES, CHOICE, EMBEDDING = range(5)

# Returns the labels of the clips in some rows of the pool.
Annotator = Callable[[Int[np.ndarray, " k"]], Int[np.ndarray, "k *c"]]


class State(NamedTuple):
    """Everything that a resumed run needs.

    Attributes:
      round: finished rounds.
      key: the run's root key.
      order: rows of the pool in the order of labelling, padded with -1.
      count: number of labelled clips.
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

    def with_labels(self, rows: Int[np.ndarray, " k"]) -> "State":
        """The state once these clips are labelled too."""
        count = int(self.count) + rows.size
        order = self.order.at[int(self.count) : count].set(rows)
        return self._replace(order=order, count=jnp.int32(count))

    def key_of(self, stream: int) -> Key[Array, ""]:
        """The key of a stream of randomness in this round."""
        return key_of(self.key, stream, self.round)


def key_of(
    key: Key[Array, ""], stream: int, number: int | Int[Array, ""]
) -> Key[Array, ""]:
    """The key of a stream of randomness in a round."""
    return jax.random.fold_in(jax.random.fold_in(key, stream), number)


class Learnt(NamedTuple):
    """A finished run: the labelled clips in order, and a row of scores per round."""

    labelled: Int[np.ndarray, " l"]
    rounds: list[dict[str, Any]]


def by_known_labels(data: Dataset) -> Dataset:
    """Decides by the validation clips whether classes are unequal.

    The labels of the pool are not known.
    """
    if data.has_tags:
        return data
    counts = tags.counts(np.asarray(data.validation.labels), data.num_classes)
    is_unequal = are_unequal(counts)
    balance, scored_by = data.balance, data.scored_by
    if balance == "auto":
        balance = "classes" if is_unequal else "none"
    if scored_by == "auto":
        scored_by = "balanced_accuracy" if is_unequal else "accuracy"
    decided = dataclasses.replace(data, balance=balance, scored_by=scored_by)
    return dataset.with_weights(decided)


def are_unequal(counts: Int[np.ndarray, " c"]) -> bool:
    """Returns whether a few clips show unequal classes; two more mean nothing."""
    return bool(counts.max() > metric.UNEQUAL * (counts.min() + 2))


def label_rounds(
    config: Config,
    data: Dataset,
    run: RunDirectory | None = None,
    annotate: Annotator | None = None,
) -> Learnt:
    """Labels clips of ``data.train`` round by round, up to the last budget.

    Args:
      run: the run directory; None: memory only.
      annotate: gives the same labels whenever it is called; None: the true labels. The
        draw of the seed set knows the truth.

    Raises:
      UserError: settings that the data does not allow.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    settings = config.active
    if config.training.seeds != 1:
        raise UserError(
            "active learning trains one network per round: --config.training.seeds=1; "
            "use --num_seeds for more runs"
        )
    if settings.acquisition in COMMITTEE:
        config = fields.replace(config, {"training.seeds": settings.committee})
    data = by_known_labels(data)
    compiled = programs.make(config.model, config.training, data)
    counted = len(data.validation.labels) if settings.count_validation else 0
    pool = len(data.train.labels)
    counts = plan(settings, data.num_train, data.num_classes, pool, counted)
    first = clips_in(settings.budgets[0], data.num_train, data.num_classes)
    # A seed set smaller than all budgets is a round before theirs.
    before = int(counts[0] + counted < first)
    key = jax.random.key(config.seed)
    state = _first_state(key, counts[0], settings, data, compiled)
    truth = np.asarray(data.train.labels)
    annotate, known = annotate or truth.__getitem__, np.zeros_like(truth)
    log = RunLog(run)
    with deferred_signals() as stop_signal:

        def stop_if_asked() -> None:
            if stop_signal():
                raise Interrupted(stop_signal(), done)

        embedding_key = jax.random.fold_in(key, EMBEDDING)
        choose = query.make_choose(
            settings, compiled.model, data, stop_if_asked, embedding_key
        )
        done, state = log.resume(state)
        known[state.labelled] = annotate(state.labelled)
        while done < len(counts):
            folder = run.path / "rounds" / f"{done + 1:02d}" if run else None
            given = with_labels(data, known)
            fitted, row = _round(config, given, compiled, state, folder)
            if run:
                path = run.path / "networks.npz"
                networks_file.save(path, fitted.networks, data, config.model)
            name = f"round {done + 1 - before} of {len(counts) - before}"
            row["round"] = name if done >= before else "seed set"
            row["counted"] = row["labelled"] + counted
            row["fraction"] = row["counted"] / data.num_train
            began = time.perf_counter()
            if done + 1 < len(counts):
                number = counts[done + 1] - counts[done]
                keys = state.key_of(PASSES), state.key_of(CHOICE)
                with progress.waiting("choosing clips to label"):
                    chosen = choose(fitted.networks, state.labelled, number, *keys)
                state = state.with_labels(chosen)
                known[chosen] = annotate(chosen)
            row["scoring_seconds"] = round(time.perf_counter() - began, 3)
            network = fitted.networks if settings.warm_start else None
            state = state._replace(round=state.round + 1, network=network)
            done += 1
            _log.info(
                "%s: %s clips, test %s %.1f %%",
                row["round"],
                f"{row['labelled']:,}",
                data.metric,
                100 * metric.score_of(row),
            )
            log.record({"step": done, **row})
            log.save(state, done)
            if folder:
                # The checkpoints only serve to resume the round's training.
                shutil.rmtree(folder / "checkpoints", True)
            stop_if_asked()
        return Learnt(state.labelled, log.history)


def with_labels(data: Dataset, labels: Int[np.ndarray, "b *c"]) -> Dataset:
    """Returns the data with other labels of the training clips."""
    labels = jnp.asarray(labels, data.train.labels.dtype)
    return dataclasses.replace(data, train=data.train._replace(labels=labels))


def train(
    data: Dataset,
    compiled: programs.Programs,
    rows: Int[np.ndarray, " l"],
    seed: int,
    run: RunDirectory | None = None,
    start: Network | None = None,
    is_padded: bool = False,
) -> fit.Fitted:
    """Trains on the labelled ``rows``, and reads no other label; see ``fit.fit``.

    If there are fewer rows than a batch takes, ``is_padded`` repeats some up to a power
    of two, so that few sizes of batches are compiled.
    """
    if data.is_balanced:
        rows = rows[batches.oversampled(data.train.labels[rows])]
    if is_padded:
        size = 1 << (rows.size - 1).bit_length()
        rows = np.resize(rows, max(rows.size, min(size, compiled.settings.batch_size)))
    chosen = fit.real_set(data.train, data.num_classes, compiled.settings, rows)
    return fit.fit(compiled, chosen, seed, run, start=start)


def clips_in(budget: str, num_train: int, num_classes: int) -> int:
    """Returns the number of clips in a budget.

    Args:
      budget: ``10/class``, or a fraction of the training split as ``0.2`` or ``20%``.
      num_train: clips of the training split, as ``Dataset.num_train``.

    Raises:
      UserError: another format, or a fraction outside (0, 1].
    """
    if match := re.fullmatch(r"([1-9]\d*)/class", budget):
        return int(match[1]) * num_classes
    match = re.fullmatch(r"(\d*\.?\d+)(%?)", budget)
    share = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < share <= 1:
        raise UserError(
            f"a budget is a fraction above 0 and at most 1, such as 0.2 or 20%, or "
            f"clips per class, such as 10/class, not {budget!r}"
        )
    return max(1, round(share * num_train))


def plan(
    settings: ActiveConfig, num_train: int, num_classes: int, pool: int, counted: int
) -> tuple[int, ...]:
    """Returns the number of labelled clips in each round, starting with the seed set.

    ``counted`` validation clips count towards the budgets; a round ends at each budget.

    Raises:
      UserError: no budgets, or budgets that do not increase or exceed the pool.
    """
    if not settings.budgets:
        raise UserError("active learning needs at least one budget")
    size = lambda text: clips_in(text, num_train, num_classes)
    initial, budgets = settings.initial, settings.budgets
    counts = [size(initial), *(size(text) - counted for text in budgets)]
    names = [f"the seed set {initial}", *(f"the budget {text}" for text in budgets)]
    for i, (name, count) in enumerate(zip(names, counts, strict=True)):
        before = counts[i - 1] if i else 0
        # The first budget may be the seed set itself.
        if count < before or (i > 1 and count == before):
            less = f" (less {counted:,} validation clips)" if counted else ""
            raise UserError(
                f"budgets must increase: {name} is {max(count, 0):,} clips{less}, "
                f"after {before:,} of {names[i - 1]}"
            )
        if count > pool:
            held_out = f", {num_train - pool:,} for validation" * (pool < num_train)
            raise UserError(
                f"{name} is {count:,} clips, but the pool has {pool:,} (the training "
                f"split has {num_train:,}{held_out})"
            )
    rounds = [counts[0]]
    for count in counts[1:]:
        while rounds[-1] < count:
            rounds.append(min(rounds[-1] + (settings.batch or count), count))
    return tuple(rounds)


def _first_state(
    key: Key[Array, ""],
    count: int,
    settings: ActiveConfig,
    data: Dataset,
    compiled: programs.Programs,
) -> State:
    """The state with the labelled seed set."""
    labels, names = data.train.labels, data.class_names
    seed_key = jax.random.fold_in(key, _SEED_SET)
    first = query.seed_set(seed_key, labels, count, names, settings.initial_draw)
    blank = None
    if settings.warm_start:  # stands for the network of the last round
        keys = jax.random.split(key, compiled.settings.seeds)
        shapes = jax.eval_shape(compiled.initial, keys).final
        blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    order = jnp.full(len(labels), -1, jnp.int32)
    return State(jnp.int32(0), key, order, jnp.int32(0), blank).with_labels(first)


def _round(
    config: Config,
    data: Dataset,
    compiled: programs.Programs,
    state: State,
    folder: Path | None,
) -> tuple[fit.Fitted, dict[str, Any]]:
    """Trains on the labelled clips in ``folder`` and tests; returns networks and a row.

    A warm start continues from the state's network after the first round.
    """
    rows = state.labelled
    seed = int(jax.random.bits(state.key_of(NETWORK), dtype=jnp.uint32))
    opened = contextlib.nullcontext()
    if folder:
        digest = hashlib.sha256(rows.tobytes()).hexdigest()[:16]
        record = fields.record(config, fields.TRAINING)
        record |= {"seed": seed, "rows": digest}
        options = presets.run_options(config, fields.TRAINING, is_part=True)
        opened = RunDirectory(folder, record, **options)
    start = state.network if int(state.round) else None
    with opened as run:
        fitted = train(data, compiled, rows, seed, run, start)
    scores = evaluation.networks(fitted, data.test, compiled.name, data.num_classes)
    scores = scores._replace(metric=data.metric)
    counts = tags.counts(np.asarray(data.train.labels)[rows], data.num_classes)
    of_class = "average_precision" if data.has_tags else "accuracy"
    last = fitted.history[-1]
    validation = ("validation_accuracy", "validation_loss")
    return fitted, {
        "labelled": int(rows.size),
        "measure": data.metric,
        **{k: v for k, v in scores.fields().items() if k.endswith("accuracy")},
        "macro_f1": scores.macro_f1,
        **{name: last[name] for name in validation if name in last},
        "class_counts": counts.tolist(),
        f"per_class_{of_class}": [None if np.isnan(a) else a for a in scores.per_class],
        "training_steps": fitted.steps,
        "training_seconds": last["seconds"],
    }
