"""Subsets of the training clips, as training sets of baselines."""

import re
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from audiodd_jax.config import Config
from audiodd_jax.coreset import selection as clips_lib
from audiodd_jax.errors import UserError
from audiodd_jax.features.dataset import Dataset

# Folded into the key, so that draws of clips differ from draws of networks.
_DRAW = 0xC11B


class Subset(NamedTuple):
    """A way to choose training clips.

    Attributes:
      name: ``all``, ``random`` or ``herding`` (``per_class``), ``fraction`` (random and
        stratified), or ``indices``.
      per_class: clips per class.
      fraction: of the training split, validation clips included.
      indices: rows of the training clips, in the order of ``prepare``.
    """

    name: str = "all"
    per_class: int = 0
    fraction: float = 1.0
    indices: tuple[int, ...] = ()

    @property
    def is_drawn(self) -> bool:
        """Whether it depends on the seed."""
        return self.name in ("random", "fraction")


def parse(text: str, per_class: int) -> Subset:
    """A subset from its name: ``all``, ``random``, ``herding``, or ``20%`` and so on.

    Args:
      text: the name.
      per_class: clips per class of ``random`` and ``herding``.

    Raises:
      UserError: an unknown name, or a percentage out of range.
    """
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
    """A random fraction of the training split.

    Raises:
      UserError: it is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise UserError(f"a fraction is above 0 and at most 1, not {fraction:g}")
    return Subset("fraction", fraction=fraction)


def read_indices(path: Path) -> Subset:
    """The clips listed in a file: a ``.npy``, or integers in a text file.

    Raises:
      UserError: the file holds something else.
    """
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
    subset: Subset, data: Dataset, config: Config, seed: int
) -> Int[np.ndarray, " b"]:
    """Rows of ``data.train`` that belong to a subset.

    Args:
      subset: to choose.
      data: the prepared dataset; only its training clips are used.
      config: of the random networks that embed clips for herding.
      seed: of the draw.

    Raises:
      UserError: a class has too few clips, or an index is out of range.
    """
    labels, count = data.train.labels, len(data.train.labels)
    key = jax.random.fold_in(jax.random.key(_DRAW), seed)
    if subset.name == "random":
        return clips_lib.random_rows(key, labels, data.class_names, subset.per_class)
    if subset.name == "fraction":
        clips = max(1, round(subset.fraction * data.num_train))
        return clips_lib.random_fraction(key, labels, clips)
    if subset.name == "herding":
        networks = config.evaluation.networks
        features = clips_lib.embed(key, data.train, config.network, networks)
        return clips_lib.herding_rows(
            features, labels, data.class_names, subset.per_class
        )
    if subset.name == "all":
        return np.arange(count)
    rows = np.array(subset.indices)
    if rows.min() < 0 or rows.max() >= count:
        raise UserError(
            f"indices of training clips are from 0 to {count - 1}, not "
            f"{rows.min() if rows.min() < 0 else rows.max()}"
        )
    if np.unique(rows).size < rows.size:
        raise UserError("a training clip is listed twice in the indices")
    return rows
