"""How many spectrograms of each class a coreset stores.

The size is a number for each class, or a number in all, which is spread over the
classes by a divisor method: each class has one, and the next goes where
``weight / (size + 1/2)`` is largest, with equal weights or the class's training clips.
Ties go to the class with most clips, then to the first. So sizes of an even spread
differ by at most one, and a larger total takes nothing from any class.

Real clips limit a class to the clips that it has. A clip with several tags counts for
each of them, and is chosen for one of them.

References:
  Balinski, Young, *Fair Representation*, 1982 (Webster's divisor method).
"""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from audiodd_jax.config import CoresetConfig
from audiodd_jax.config.names import SELECTION
from audiodd_jax.config.packing import Packing
from audiodd_jax.errors import UserError

# Most classes that a message lists.
_LISTED = 5


def of_classes(
    config: CoresetConfig,
    method: str,
    clips: Int[np.ndarray, " c"],
    class_names: Sequence[str],
) -> Int[np.ndarray, " c"]:
    """Returns the stored spectrograms of each class, which has ``clips`` to learn from.

    Raises:
      UserError: fewer spectrograms than classes, more in each than any class has clips,
        or a class has too few clips for one.
    """
    if 0 < config.samples < clips.size:
        raise UserError(
            f"samples={config.samples}, but each of the {clips.size} classes has at "
            "least one spectrogram; raise it"
        )
    sizes = spread(config, clips, _most(config, method, clips))
    if sizes.all():
        if config.samples_per_class > sizes.max():
            largest = int(sizes.argmax())
            raise UserError(
                f"samples_per_class={config.samples_per_class}, but the largest class, "
                f"{class_names[largest]!r}, has clips for {sizes[largest]}; lower it"
            )
        return sizes
    least = int(clips.argmin())
    text = f"the class {class_names[least]!r} has {clips[least]} training clips"
    if clips[least]:
        text += f", too few for coreset.factor={config.factor}; lower it"
    if method not in SELECTION:
        text += ", or pass --config.coreset.init=noise"
    raise UserError(text)


def spread(
    config: CoresetConfig,
    clips: Int[np.ndarray, " c"],
    most: Int[np.ndarray, " c"] | None = None,
) -> Int[np.ndarray, " c"]:
    """Returns the size of each class, at most ``most``; None: without a limit.

    Sizes have the sum ``config.samples``, if it is set and the limits allow it.
    """
    if most is None:
        most = np.full(clips.size, config.samples or config.samples_per_class)
    if not config.samples:
        return np.minimum(config.samples_per_class, most)
    order = np.argsort(-clips, kind="stable")
    most, weights = most[order], np.ones(clips.size)
    if config.spread == "proportional":
        weights = clips[order]
    sizes = np.minimum(1, most)
    for _ in range(min(config.samples, most.sum()) - sizes.sum()):
        sizes[np.where(sizes < most, weights / (sizes + 0.5), -1).argmax()] += 1
    return sizes[np.argsort(order)]


def class_order(sizes: Int[np.ndarray, " c"]) -> Int[np.ndarray, " s"]:
    """Returns the class of each of ``s`` spectrograms, which are in class order."""
    return np.repeat(np.arange(sizes.size), sizes)


def prefixes(per_class: int) -> tuple[int, ...]:
    """Returns the sizes of the coresets in a nested one: 1, 2, 5, 10, ..., all."""
    steps = (digit * 10**power for power in range(9) for digit in (1, 2, 5))
    return (*itertools.takewhile(lambda size: size < per_class, steps), per_class)


def layers(classes: Int[np.ndarray, " s"]) -> Int[np.ndarray, " s"]:
    """Returns the first prefix, by index, that holds each spectrogram of a class."""
    ranks = ranks_in_class(classes)
    ends = prefixes(int(ranks.max()) + 1)
    return np.searchsorted(np.array(ends), ranks, side="right")


def ranks_in_class(classes: Int[np.ndarray, " b"]) -> Int[np.ndarray, " b"]:
    """Numbers the clips of each class from 0, in their order."""
    order = np.argsort(classes, kind="stable")
    counts = np.bincount(classes)
    ranks = np.empty(len(classes), int)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    ranks[order] = np.arange(len(classes)) - starts
    return ranks


def shortage(
    config: CoresetConfig,
    method: str,
    clips: Int[np.ndarray, " c"],
    class_names: Sequence[str],
) -> str:
    """Describes the classes with too few clips; empty if all have enough."""
    sizes = spread(config, clips, _most(config, method, clips))
    return in_words(spread(config, clips), sizes, class_names)


def in_words(
    asked: Int[np.ndarray, " c"],
    sizes: Int[np.ndarray, " c"],
    class_names: Sequence[str],
) -> str:
    """Describes the classes with fewer clips than asked; empty if all have enough."""
    short = np.flatnonzero(sizes < asked)
    if not short.size:
        return ""
    listed = [f"{class_names[i]} {sizes[i]} of {asked[i]}" for i in short[:_LISTED]]
    if short.size > _LISTED:
        listed.append(f"and {short.size - _LISTED} more")
    total, wanted = sizes.sum(), asked.sum()
    rest = "the other classes have the rest"
    if total < wanted:
        rest = f"{total:,} of {wanted:,} in all"
    return f"too few training clips, so all are taken: {', '.join(listed)}; {rest}"


def _most(
    config: CoresetConfig, method: str, clips: Int[np.ndarray, " c"]
) -> Int[np.ndarray, " c"] | None:
    """Returns the images that real clips fill; None: the coreset starts from noise."""
    if config.init == "noise" and method not in SELECTION:
        return None
    return clips // Packing.parse(config.factor).per_image
