"""Subsets of the training clips, as training sets of baselines."""

import logging
import re
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from audiodd_jax.config import CoresetConfig
from audiodd_jax.coreset import selection, sizes
from audiodd_jax.coreset.selection import Embedding
from audiodd_jax.errors import UserError
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.runtime import mirror, progress

_log = logging.getLogger(__name__)

# Folded into the key, so that draws of clips differ from draws of networks.
_DRAW = 0xC11B


class Subset(NamedTuple):
    """A way to choose training clips.

    Attributes:
      name: ``all``, ``random`` or ``herding`` (``per_class`` or ``samples``),
        ``fraction`` (random and stratified), or ``indices``.
      per_class: clips per class, or of each class; those with fewer give all.
      samples: clips in all, in place of ``per_class`` (``coreset.sizes``).
      spread: how ``samples`` are spread over the classes: ``even`` or ``proportional``.
      fraction: share of the training split, validation clips included.
      indices: rows of the training clips, in the order of ``prepare``.
    """

    name: str = "all"
    per_class: int | tuple[int, ...] = 0
    fraction: float = 1.0
    indices: tuple[int, ...] = ()
    samples: int = 0
    spread: str = "even"

    @property
    def is_drawn(self) -> bool:
        """True if the choice depends on the seed."""
        return self.name in ("random", "fraction")


def parse(text: str, per_class: int | tuple[int, ...]) -> Subset:
    """Parses ``all``, ``random``, ``herding``, or a percentage such as ``20%``."""
    if text in ("random", "herding"):
        return Subset(text, per_class=per_class)
    if text == "all":
        return Subset()
    if not re.fullmatch(r"\d+(\.\d+)?%", text):
        raise UserError(
            f"unknown baseline {text!r}; choose from random, herding, hard, all, and "
            "percentages such as 20%"
        )
    return fraction_of(float(text[:-1]) / 100)


def fraction_of(fraction: float) -> Subset:
    """A random fraction of the training split."""
    if not 0 < fraction <= 1:
        raise UserError(f"a fraction is above 0 and at most 1, not {fraction:g}")
    return Subset("fraction", fraction=fraction)


def read_indices(path: Path) -> Subset:
    """Reads the rows of clips from a ``.npy`` file, or from integers in a text file."""
    mirror.fetch(path)
    try:
        if path.suffix == ".npy":
            rows = np.load(path, allow_pickle=False)
        else:
            rows = np.array([int(word) for word in path.read_text().split()])
    except (ValueError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a list of integers") from error
    if rows.ndim != 1 or not rows.size or not np.issubdtype(rows.dtype, np.integer):
        raise UserError(f"{path} is not a list of integers")
    return Subset("indices", indices=tuple(rows.tolist()))


def choose(
    subset: Subset, data: Dataset, embedding: Embedding | None, seed: int
) -> Int[np.ndarray, " b"]:
    """Chooses the rows of ``data.train`` that belong to a subset."""
    train, count = data.train, len(data.train.labels)
    key = jax.random.fold_in(jax.random.key(_DRAW), seed)
    if subset.name == "all":
        return np.arange(count)
    if subset.name == "fraction":
        clips = max(1, round(subset.fraction * data.num_train))
        return selection.random_fraction(key, train.labels, clips)
    if subset.name != "indices":
        given = (key, train, data.class_names, _sizes(subset, data), embedding)
        with progress.waiting(f"choosing clips ({subset.name})"):
            return selection.select(subset.name, *given)
    rows = np.array(subset.indices)
    if rows.min() < 0 or rows.max() >= count:
        raise UserError(
            f"indices of training clips are from 0 to {count - 1}, not "
            f"{rows.min() if rows.min() < 0 else rows.max()}"
        )
    if np.unique(rows).size < rows.size:
        raise UserError("a training clip is listed twice in the indices")
    return rows


def _sizes(subset: Subset, data: Dataset) -> Int[np.ndarray, " c"]:
    """Returns how many clips of each class a subset has, and logs missing ones."""
    clips, names = data.class_clips, data.class_names
    if isinstance(subset.per_class, tuple):
        asked = np.array(subset.per_class)
        result = np.minimum(asked, clips)
    else:
        config = CoresetConfig(
            subset.per_class, samples=subset.samples, spread=subset.spread
        )
        asked = sizes.spread(config, clips)
        result = sizes.of_classes(config, subset.name, clips, names)
    if text := sizes.in_words(asked, result, names):
        _log.warning("%s: %s", subset.name, text)
    return result
