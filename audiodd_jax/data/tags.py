"""Labels: a single class per clip, or tags (multi-label).

Classes are ``[b]`` integers. Tags are multi-hot, ``[b, c]``: 1 where a clip has a tag,
and 0 elsewhere; a clip may have no tags. The number of axes distinguishes the two.
"""

from typing import Any

import numpy as np
from jaxtyping import Int


def are_tags(labels: Int[Any, "b *c"]) -> bool:
    """True if labels, as an array of NumPy or JAX, are tags instead of classes."""
    return labels.ndim == 2


def counts(labels: Int[np.ndarray, "b *c"], num_classes: int) -> Int[np.ndarray, " c"]:
    """Returns the number of clips of each class, or with each tag."""
    if are_tags(labels):
        return labels.sum(0, dtype=np.int64)
    return np.bincount(labels, minlength=num_classes)


def strata(labels: Int[np.ndarray, "b *c"]) -> Int[np.ndarray, " b"]:
    """Returns a class per clip for stratified draws: the rarest tag of a tagged clip.

    Clips without tags form the additional class ``c``. Rare tags take precedence, as in
    iterative stratification, since random draws miss them.

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
    """Returns the class of a clip, or its tags joined by semicolons."""
    if label.ndim == 0:
        return class_names[label]
    return ";".join(class_names[column] for column in np.flatnonzero(label))
