"""Clips of each class chosen by acquisition functions, as rivals of a coreset."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Int

from audiodd_jax.active_learning import query
from audiodd_jax.config import extensions, fields, presets
from audiodd_jax.config.names import COVERING, DIVERSE, SCORING
from audiodd_jax.networks import models
from audiodd_jax.runtime import progress
from audiodd_jax.training.fit import Fitted
from audiodd_jax.training.rate_search import RateSearch
from audiodd_jax.training.source import Source

_log = logging.getLogger(__name__)

# Folded into a seed's key, for the choice of clips.
_CHOICE = 0xAC0


def functions_of(model: nn.Module) -> list[str]:
    """Returns the acquisition functions to choose from; scores need dropout."""
    scoring = [*SCORING, *extensions.names(extensions.ACQUISITIONS)]
    scoring.remove("random")
    return [*COVERING, *DIVERSE, *(scoring if model.dropout else [])]


def with_dropout(search: RateSearch) -> RateSearch:
    """Returns the search for networks with the dropout of active learning."""
    config = fields.replace(search.config, presets.ACTIVE_DEFAULTS)
    return search._replace(config=config, compiled={})


def choose(
    search: RateSearch,
    seed: int,
    per_class: int,
    source_of: Callable[[Int[np.ndarray, " k"] | None], Source],
    function: str = "",
) -> dict[str, Any]:
    """Chooses clips by an acquisition function, or by the best one in validation.

    Functions that need a network have one with dropout that was trained on random
    clips, as many as are chosen. Like herding, they choose class by class, since all
    labels are known. Returns the ``function``, the chosen ``rows`` in class order, and
    the ``validation_accuracies`` of networks trained on each function's clips.

    Args:
      search: settings of the networks; their labels are hard.
      source_of: makes a training set of rows; of random clips from None.
      function: its name; empty: the best one.
    """
    rate, data = search.config.training.learning_rate, search.data
    as_active = with_dropout(search)
    model = models.make(as_active.config.model, data.num_classes)
    functions = [function] if function else functions_of(model)
    key = jax.random.fold_in(jax.random.key(seed), _CHOICE)

    def rows_of(name: str, fitted: Fitted | None) -> Int[np.ndarray, " k"]:
        settings = as_active.config.active
        settings = dataclasses.replace(settings, acquisition=name)
        chooser = query.make_choose(settings, model, data, lambda: None, key)
        networks = fitted and fitted.networks
        with progress.waiting(f"choosing clips ({name})"):
            return query.choose_by_class(chooser, networks, data, per_class, key)

    def work(folder: Path) -> dict[str, Any]:
        fitted = None
        if set(functions) - set(COVERING):
            given = (source_of(None), seed, rate, folder / "random")
            fitted = as_active.trial(*given).fitted
        rows = {name: rows_of(name, fitted) for name in functions}
        best, validation = function, {}
        if not function:
            trials = {
                name: search.trial(source_of(rows[name]), seed, rate, folder / name)
                for name in functions
            }
            best = max(functions, key=lambda name: trials[name].validation)
            validation = {name: trials[name].validation[0] for name in functions}
            _log.info("best acquisition function in validation: %s", best)
        return {
            "function": best,
            "rows": rows[best].tolist(),
            "validation_accuracies": validation,
        }

    name = f"clips-by-{function or 'best-function'}-seed{seed}"
    record = {"functions": functions, "per_class": per_class}
    return search.once(name, seed, record, work)
