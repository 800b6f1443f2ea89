"""The budget of a coreset's file: which settings spend a number of bytes best.

The rule was found on validation clips (``BUILD_NOTES.md``):

1. Images that networks learn from have four bits per value, those of short clips two,
   and others eight. Of more than 64 classes, views have their 32 largest labels.
2. Spectrograms are as large as possible, whole or 1/2, 1/4, 1/8 of the mel bins and of
   the frames, such that enough per class fit (``_SIZES``). Short clips that networks
   learn from are whole only if all of them fit.
3. There are as many per class as fit into the share of the bytes of images and labels
   that images may have, and at least one.
4. The rest of the bytes is spent on views, of which each spectrogram has equally many.
5. RFAD does not learn small spectrograms of short clips for networks: many real clips
   teach these as well as they are. If it must (it continues a coreset, say), and for
   longer clips, it learns them at a tenth of the rate.
"""

import functools
import json
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from audiodd_jax.config.names import METHODS, SELECTION
from audiodd_jax.config.packing import Factor, Packing, bytes_of
from audiodd_jax.coreset import storage
from audiodd_jax.coreset.dataset import metadata_of, with_teacher
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.features.dataset import Dataset

_log = logging.getLogger(__name__)

# Clips of at most so many seconds are short.
_SHORT = 2.0
# Packings from the largest images to the smallest, and how many spectrograms per class
# are enough, of short clips that networks learn from and of others.
_SIZES: dict[Factor, tuple[float, float]] = {
    1: (math.inf, 3),
    "2x2:1": (25, 3),
    "4x4:1": (2, 3),
    "8x8:1": (1, 1),
}
_SHARE_OF_IMAGES = 0.5
# The highest learning rate of images below full size, in the loss of views.
_RATE = 3e-3
# The settings that a budget chooses, by their dotted names.
NAMES = (
    *("coreset.samples_per_class", "coreset.factor", "coreset.storage"),
    *("coreset.views", "views.top_k", "method"),
)
_MANY, _TOP_K = 64, 32
# Views of a spectrogram: at least, before fewer spectrograms are stored, and at most.
_VIEWS = (4, 400)
# The metadata's numbers may take so many bytes more than they did in the estimate.
_SLACK = 64


class Problem(NamedTuple):
    """Sizes that the choice depends on.

    Attributes:
      shape: ``(f, t)`` of a spectrogram.
      num_classes: classes or tags.
      most: spectrograms per class, at most.
      seconds: length of a clip.
      has_views: whether a teacher labels views.
      has_labels: whether labels are stored that do not follow from the classes.
      metadata: metadata of the file, with the names of the classes.
    """

    shape: tuple[int, int]
    num_classes: int
    most: int
    seconds: float
    has_views: bool
    has_labels: bool
    metadata: dict[str, Any]

    @property
    def is_short(self) -> bool:
        """True if networks learn from short clips."""
        return self.has_views and self.seconds <= _SHORT

    @property
    def storage(self) -> str:
        """How numbers are stored."""
        of_views = "int2" if self.is_short else "int4"
        return of_views if self.has_views else "int8"


class Choice(NamedTuple):
    """Settings, and the bytes that a file with them has at most."""

    samples_per_class: int
    factor: Factor
    storage: str
    views: int
    top_k: int
    bytes: int

    @property
    def changes(self) -> dict[str, Any]:
        """The settings by their dotted names."""
        return {
            "coreset.samples_per_class": self.samples_per_class,
            "coreset.factor": self.factor,
            "coreset.storage": self.storage,
            "coreset.views": self.views,
            "views.top_k": self.top_k,
        }


def changes(settings: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """Returns the settings that ``coreset.budget`` chooses, by their dotted names.

    ``settings`` are those of the run, as it records them.

    Raises:
      UserError: as ``choose``.
    """
    coreset, has_views = settings["coreset"], settings["teacher"]["networks"] > 0
    learns = coreset["learn_labels"] or coreset["solve_labels"]
    is_soft = learns or data.has_tags or settings["method"] not in METHODS
    metadata = metadata_of(settings, data)
    metadata["class_names"] = data.class_names
    problem = Problem(
        data.image_shape,
        data.num_classes,
        int(tags.counts(np.asarray(data.train.labels), data.num_classes).min()),
        data.features.clip_seconds,
        has_views,
        is_soft or coreset["init"].endswith(".npz"),
        with_teacher(metadata) if has_views else metadata,
    )
    choice = choose(bytes_of(coreset["budget"]), problem)
    found = {**choice.changes, **learning(settings, choice.factor, problem.is_short)}
    _log.info("%s: %s", coreset["budget"], in_words(found))
    return found


def learning(
    settings: dict[str, Any], factor: Factor, is_short: bool
) -> dict[str, Any]:
    """Returns how spectrograms of a size are learnt, by the names of settings."""
    coreset, rate = settings["coreset"], settings["optimizer"]["learning_rate"]
    if factor == 1 or not settings["rfad"]["views"] or settings["method"] != "rfad":
        return {}
    is_continued = coreset["init"].endswith(".npz")
    must_learn = is_continued or coreset["nested"] or coreset["preconditioner"]
    if must_learn or not is_short:
        return {"optimizer.learning_rate": min(rate, _RATE)}
    return {"method": "random"}


def in_words(chosen: Mapping[str, Any]) -> str:
    """Describes the settings that a budget chose, by their dotted names."""
    n, factor = chosen["coreset.samples_per_class"], chosen["coreset.factor"]
    is_real = chosen.get("method") in SELECTION
    words = [f"{n} real clips per class" if is_real else f"{n} per class"]
    words += [f"packed {factor}", chosen["coreset.storage"]]
    if views := chosen["coreset.views"]:
        top_k = chosen["views.top_k"]
        labels = f"the {top_k} largest labels" if top_k else "all labels"
        words.append(f"{views} views of each with {labels}")
    return ", ".join(words)


def choose(budget: int, problem: Problem) -> Choice:
    """Chooses the settings of a coreset whose file has at most ``budget`` bytes.

    Raises:
      UserError: not even the smallest coreset fits; the least budget is named.
    """
    mel_bins, frames = problem.shape
    divides = lambda mel, time, _: not (mel_bins % mel or frames % time)
    factors = [one for one in _SIZES if divides(*Packing.parse(one))]
    filled = [_fill(budget, problem, factor) for factor in factors]
    fitting = [choice for choice in filled if choice is not None]
    if not fitting:
        least = _bytes(problem, 1, factors[-1], _least_views(problem))
        raise UserError(
            f"a coreset of {problem.num_classes} classes does not fit into {budget:,} "
            f"bytes: the least budget is {least:,}"
        )

    def is_enough(choice: Choice) -> bool:
        needed = _SIZES[choice.factor][0 if problem.is_short else 1]
        return choice.samples_per_class >= min(needed, problem.most)

    return next(filter(is_enough, fitting), fitting[-1])


def _fill(budget: int, problem: Problem, factor: Factor) -> Choice | None:
    """Chooses numbers of spectrograms and views; None: not one per class fits."""
    fewest = _least_views(problem)
    size = functools.partial(_bytes, problem, factor=factor)
    if size(1, views=fewest) > budget:
        return None
    share = _SHARE_OF_IMAGES if problem.has_views else 1.0
    fixed = size(0, views=0)
    within = fixed + int(share * (budget - fixed))
    n = max(1, _most(lambda n: size(n, views=0) <= within, problem.most))
    while size(n, views=fewest) > budget:
        n -= 1
    views = 0
    if problem.has_views:
        views = _most(lambda views: size(n, views=views) <= budget, _VIEWS[1])
    total = size(n, views=views)
    return Choice(n, factor, problem.storage, views, _top_k(problem), total)


def _least_views(problem: Problem) -> int:
    return _VIEWS[0] if problem.has_views else 0


def _top_k(problem: Problem) -> int:
    return _TOP_K if problem.has_views and problem.num_classes > _MANY else 0


def _most(fits: Callable[[int], bool], most: int) -> int:
    """Returns the largest number up to ``most`` that fits."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _bytes(problem: Problem, samples_per_class: int, factor: Factor, views: int) -> int:
    """Returns the size of the file, by the shapes of its arrays."""
    c = problem.num_classes
    s, packing = c * samples_per_class, Packing.parse(factor)
    array = lambda kind, *shape: np.broadcast_to(np.zeros((), kind), shape)
    shape = (s, *packing.image_shape(problem.shape), 1)
    arrays = {
        **storage.like_images(shape, problem.storage),
        "classes": array(np.min_scalar_type(c - 1), s),
        "metadata": array(np.uint8, _metadata_bytes(problem.metadata)),
    }
    if problem.has_labels:
        arrays["labels"] = array(np.int8, s, c)
        arrays["label_scale"] = array(np.float16, s)
    if views:
        k, top_k = views * s * packing.per_image, _top_k(problem)
        arrays["teacher_labels"] = array(np.uint8, k, top_k or c)
        if top_k:
            arrays["teacher_classes"] = array(np.min_scalar_type(c - 1), k, top_k)
    return storage.count(arrays).total


def _metadata_bytes(metadata: dict[str, Any]) -> int:
    return storage.pack_text(json.dumps(metadata)).size + _SLACK
