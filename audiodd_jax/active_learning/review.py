"""Answers that networks contradict, for a person to review.

Networks learn most of the labels that they are trained on, wrong ones too. So each
answer is compared with networks that were trained without it, in two partitions into
three parts. It is contested if all of them contradict it.

References:
  Brodley and Friedl, *Identifying Mislabeled Training Data*, JAIR 1999 (consensus
  filters); Northcutt, Jiang, Chuang, *Confident Learning*, JAIR 2021.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

FOLDS, REPEATS = 3, 2


class Contested(NamedTuple):
    """Rows whose answers are contested, the most certainly wrong first.

    Attributes:
      predicted: mean probabilities by the networks that did not learn the answer.
    """

    rows: Int[np.ndarray, " k"]
    predicted: Float[np.ndarray, "k c"]


def contested(
    labels: Int[np.ndarray, "b *c"],
    train: Int[np.ndarray, " l"],
    others: Int[np.ndarray, " v"],
    learn: Callable[[Int[np.ndarray, " n"], int], Float[np.ndarray, "b c"]],
    seed: int,
) -> Contested:
    """Finds the answers that all networks contradict that did not learn them.

    Args:
      labels: answers; those outside ``train`` and ``others`` are not read.
      train: rows to learn from.
      others: rows with answers that no network learns, such as validation.
      learn: trains on rows with a seed, and returns the probabilities of all clips.
    """
    rng = np.random.default_rng(seed)
    rows = np.concatenate([train, others])
    has_tags, found = labels.ndim == 2, []
    parts = min(FOLDS, train.size)
    for repeat in range(REPEATS):
        part = np.arange(train.size) % parts
        rng.shuffle(part)
        predicted = []
        for fold in range(parts):
            rest = train[part != fold]
            # One class alone teaches nothing, and contradicts nothing.
            if len(np.unique(labels[rest], axis=0)) < 2:
                return Contested(rows[:0], np.zeros((0, labels.max(initial=0) + 1)))
            predicted.append(learn(rest, repeat * FOLDS + fold))
        stacked = np.stack(predicted)
        own = stacked[part, train]
        found.append(
            np.concatenate([own[None].repeat(parts, 0), stacked[:, others]], 1)
        )
    outputs = np.concatenate(found)
    if has_tags:
        given = labels[rows] > 0
        # A tag of the answer is contested if every network denies it, or adds another.
        wrong = (outputs > 0.5) != given
        is_contested = wrong.all(0).any(1)
        doubt = np.abs(outputs.mean(0) - given).max(1)
    else:
        is_contested = (outputs.argmax(2) != labels[rows]).all(0)
        doubt = 1 - outputs.mean(0)[np.arange(rows.size), labels[rows]]
    order = np.argsort(-doubt, kind="stable")
    order = order[is_contested[order]]
    return Contested(rows[order], outputs.mean(0)[order])
