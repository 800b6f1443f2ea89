"""Labels in their two forms: the class of each clip, or the tags of each clip.

Labels of one class per clip are ``[b]`` integers. Tags are ``[b, c]``, 1 where a clip
has a tag and 0 elsewhere (multi-hot); a clip may have none. The number of axes alone
says which of them a dataset has.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int


def are_tags(labels: Int[Any, "b *c"]) -> bool:
    """Whether labels are tags, and not classes; of arrays of NumPy or JAX."""
    return labels.ndim == 2


def multi_hot(
    names: Sequence[Sequence[str]], class_names: Sequence[str]
) -> Int[np.ndarray, "b c"]:
    """Tags from their names, which are among ``class_names``."""
    place = {name: i for i, name in enumerate(class_names)}
    labels = np.zeros((len(names), len(class_names)), np.int8)
    for row, own in zip(labels, names, strict=True):
        row[[place[name] for name in own]] = 1
    return labels


def counts(labels: Int[np.ndarray, "b *c"], num_classes: int) -> Int[np.ndarray, " c"]:
    """The number of clips of each class, or with each tag.

    Args:
      labels: classes or tags.
      num_classes: ``c``.
    """
    if are_tags(labels):
        return labels.sum(0, dtype=np.int64)
    return np.bincount(labels, minlength=num_classes)


def strata(labels: Int[np.ndarray, "b *c"]) -> Int[np.ndarray, " b"]:
    """A class per clip, for stratified draws: of a clip with tags its rarest.

    Clips without tags are a class of their own, ``c``. Rare tags are those that a draw
    at random misses, so that they come first, as in iterative stratification.

    References:
      Sechidis, Tsoumakas, Vlahavas, *On the Stratification of Multi-Label Data*, ECML
      PKDD 2011.
    """
    if not are_tags(labels):
        return labels
    num_classes = labels.shape[1]
    frequency = counts(labels, num_classes)
    rarest = np.where(labels > 0, frequency, len(labels) + 1).argmin(1)
    return np.where(labels.any(1), rarest, num_classes)


def in_words(label: Int[Any, "*c"], class_names: tuple[str, ...]) -> str:
    """The class of a clip, or its tags joined by semicolons."""
    if label.ndim == 0:
        return class_names[label]
    return ";".join(class_names[place] for place in np.flatnonzero(label))
