"""Clips of each class chosen by acquisition functions, as rivals of a coreset."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from audiodd_jax.active_learning import query
from audiodd_jax.config import extensions, fields, presets
from audiodd_jax.config.names import COMMITTEE, COVERING, DIVERSE, SCORING
from audiodd_jax.networks import models
from audiodd_jax.networks.models import Network
from audiodd_jax.runtime import progress
from audiodd_jax.training.rate_search import RateSearch
from audiodd_jax.training.source import Source

# Folded into a seed's key, for the choice of clips.
_CHOICE = 0xAC0
# Between the seeds of a committee's networks; the first has the seed itself.
_MEMBER = 1 << 16


def functions_of(model: nn.Module) -> list[str]:
    """Returns the acquisition functions to choose from; scores need dropout."""
    scoring = [*SCORING, *extensions.names(extensions.ACQUISITIONS)]
    scoring.remove("random")
    return [*COVERING, *DIVERSE, *COMMITTEE, *(scoring if model.dropout else [])]


def with_dropout(search: RateSearch) -> RateSearch:
    """Returns the search for networks with the dropout of active learning."""
    config = fields.replace(search.config, presets.ACTIVE_DEFAULTS)
    return search._replace(config=config, compiled={})


class Choices(NamedTuple):
    """The clips that each acquisition function chooses with one seed, by its name.

    Attributes:
      rows: in class order.
      validation: scores of networks trained on these clips.
    """

    rows: dict[str, Int[np.ndarray, " k"]]
    validation: dict[str, float]


def best(choices: Sequence[Choices]) -> str:
    """Returns the function with the best mean validation score over seeds."""
    mean = lambda name: statistics.fmean(one.validation[name] for one in choices)
    return max(choices[0].validation, key=mean)


def choose(
    search: RateSearch,
    seed: int,
    sizes: Int[np.ndarray, " c"],
    random: Source,
    source_of: Callable[[Int[np.ndarray, " k"]], Source],
) -> Choices:
    """Chooses clips by every acquisition function, and validates their hard labels.

    Functions that need a network have one with dropout, trained on random clips, or a
    committee of such networks. All choose class by class, like herding, since the
    labels are known.

    Args:
      search: settings of the networks; their labels are hard.
      sizes: clips of each class to choose.
      random: random clips of these sizes.
      source_of: makes a training set of rows.
    """
    rate, data = search.config.training.learning_rate, search.data
    as_active = with_dropout(search)
    model = models.make(as_active.config.model, data.num_classes)
    functions = functions_of(model)
    key = jax.random.fold_in(jax.random.key(seed), _CHOICE)

    def rows_of(name: str, networks: Network | None) -> Int[np.ndarray, " k"]:
        settings = as_active.config.active
        settings = dataclasses.replace(settings, acquisition=name)
        chooser = query.make_choose(settings, model, data, lambda: None, key)
        with progress.waiting(f"choosing clips ({name})"):
            return query.choose_by_class(chooser, networks, data, sizes, key)

    def work(folder: Path) -> dict[str, Any]:
        trained: list[Network] = []
        size = as_active.config.active.committee
        count = size if set(functions) & set(COMMITTEE) else 1
        for i in range(count if set(functions) - set(COVERING) else 0):
            place = folder / f"random{i or ''}"
            fitted = as_active.trial(random, seed + i * _MEMBER, rate, place).fitted
            if fitted:
                trained.append(fitted.networks)
        networks = trained and jax.tree.map(lambda *x: jnp.concatenate(x), *trained)
        rows, validation = {}, {}
        for name in functions:
            chosen = rows_of(name, networks or None)
            trial = search.trial(source_of(chosen), seed, rate, folder / name)
            rows[name], validation[name] = chosen.tolist(), trial.validation[0]
        return {"rows": rows, "validation_accuracies": validation}

    record = {"functions": functions, "sizes": sizes.tolist()}
    result = search.once(f"acquisition-seed{seed}", seed, record, work)
    rows = {name: np.array(chosen) for name, chosen in result["rows"].items()}
    return Choices(rows, result["validation_accuracies"])
