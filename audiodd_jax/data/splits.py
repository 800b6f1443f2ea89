"""Assigns clips to training, validation and test."""

import collections
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped

from audiodd_jax.config import DataConfig
from audiodd_jax.data import tags
from audiodd_jax.data.recordings import IDENTICAL, TEST, TRAIN, VALIDATION
from audiodd_jax.errors import UserError, counted

_log = logging.getLogger(__name__)

_HAVE = ("group of recordings has", "groups of recordings have")


class SplitIndices(NamedTuple):
    """The clips of each split, ascending; there may be no validation clips."""

    train: Int[np.ndarray, " train"]
    validation: Int[np.ndarray, " validation"]
    test: Int[np.ndarray, " test"]


def hold_out(
    candidates: Int[np.ndarray, " candidates"],
    labels: Int[np.ndarray, " clips"],
    groups: Shaped[np.ndarray, " clips"],
    fraction: float,
    rng: np.random.Generator,
) -> Int[np.ndarray, " held_out"]:
    """Draws ``fraction`` of each class of ``candidates``, in whole groups.

    Every class keeps at least one clip.
    """
    by_group: dict[str, list[int]] = collections.defaultdict(list)
    for i in candidates.tolist():
        # A clip without a group is a group of its own. No name contains \0.
        by_group[groups[i] or f"\0{i}"].append(i)
    sizes = np.bincount(labels[candidates], minlength=labels.max(initial=0) + 1)
    wanted = np.floor(fraction * sizes + 0.5)
    taken = np.zeros_like(sizes)
    held: list[int] = []
    for name in rng.permutation(sorted(by_group)):
        members = by_group[name]
        if len(members) == 1:  # the same rule without arrays, which is faster
            label = labels[members[0]]
            if taken[label] < wanted[label] and taken[label] + 1 < sizes[label]:
                held.append(members[0])
                taken[label] += 1
            continue
        counts = np.bincount(labels[members], minlength=sizes.size)
        after = taken + counts
        present = counts > 0
        is_wanted = (taken[present] < wanted[present]).all()
        # With up to half a group too many, the fraction is closer than without it.
        is_near = (after[present] <= wanted[present] + counts[present] / 2).all()
        if is_wanted and is_near and (after[present] < sizes[present]).all():
            held.extend(members)
            taken = after
    return np.array(sorted(held), np.int64)


def assign(
    labels: Int[np.ndarray, "clips *c"],
    splits: Shaped[np.ndarray, " clips"],
    folds: Int[np.ndarray, " clips"],
    groups: Shaped[np.ndarray, " clips"],
    config: DataConfig,
) -> SplitIndices:
    """Splits the clips by the given split, by fold, or at random.

    Given test clips precede folds, unless ``config.fold`` asks for one.
    Validation clips are the given ones, or drawn from the training clips with
    ``split_seed``, stratified by class (or by the rarest tag of a clip), keeping groups
    (recordings, speakers) together.

    Raises:
      UserError: an unknown fold, a fraction outside [0, 1), or an empty split.
    """
    for name in ("validation_fraction", "test_fraction"):
        value = getattr(config, name)
        if not 0 <= value < 1:
            raise UserError(f"{name} must be in [0, 1), not {value:g}")
    rng = np.random.default_rng(config.split_seed)
    clips, strata = np.arange(len(labels)), tags.strata(labels)
    if config.fold and not folds.any():
        raise UserError(f"--fold={config.fold} needs data with folds")
    if decided_by_fold(splits, folds, config):
        is_test = _of_fold(folds, config)
        if is_test.all():
            _log.warning(
                "the data has fold %d only: %g of it, in whole source recordings, is "
                "the test split, which is not the official protocol",
                folds[0],
                config.test_fraction,
            )
            held = hold_out(clips, strata, groups, config.test_fraction, rng)
            is_test = np.isin(clips, held)
    elif (splits == TEST).any():
        is_test = splits == TEST
    else:
        candidates = clips[splits != VALIDATION]
        held = hold_out(candidates, strata, groups, config.test_fraction, rng)
        if config.test_fraction and not held.size:
            # Copies of a few recordings: no honest split, but a first try works.
            is_copy = np.char.startswith(groups.astype(str), IDENTICAL)
            groups = np.where(is_copy, "", groups)
            held = hold_out(candidates, strata, groups, config.test_fraction, rng)
            if held.size:
                _log.warning(
                    "each class consists of copies of one recording: the test clips "
                    "are copies of training clips"
                )
        is_test = np.isin(clips, held)
    is_validation = (splits == VALIDATION) & ~is_test
    if not is_validation.any():
        held = hold_out(
            clips[~is_test], strata, groups, config.validation_fraction, rng
        )
        is_validation = np.isin(clips, held)
    result = SplitIndices(
        clips[~is_test & ~is_validation], clips[is_validation], clips[is_test]
    )
    for name in (TRAIN, TEST):
        if not getattr(result, name).size:
            advice = ""
            if groups.all():  # such as segments of one recording
                advice = (
                    ": a random split keeps the clips of a speaker and the segments "
                    f"of a recording together, here {np.unique(groups).size} in all; "
                    "add a column split, fold or group"
                )
            raise UserError(f"no clip is left for the {name} split{advice}")
    _warn(result, labels, groups)
    return result


def decided_by_fold(
    splits: Shaped[np.ndarray, " clips"],
    folds: Int[np.ndarray, " clips"],
    config: DataConfig,
) -> bool:
    """Returns whether the test clips are those of a fold."""
    return bool(folds.any()) and (config.fold > 0 or not (splits == TEST).any())


def describe(clips: Any, parts: SplitIndices, config: DataConfig) -> dict[str, str]:
    """Describes how clips (``Recordings`` or features) were split, and their groups."""
    given, folds = clips.splits, clips.folds
    num_given, unnamed = int((given == TEST).sum()), int((given == "").sum())
    others = []
    if decided_by_fold(given, folds, config):
        split = f"fold {folds[parts.test[0]]} is the test split"
        if num_given:
            clips_given = counted(num_given, "test clip")
            others.append(f"--fold precedes the split of {clips_given}")
    elif num_given:
        split = "the given test split"
        if unnamed:
            words = ("clip that names no split is", "clips that name no split are")
            others.append(f"{counted(unnamed, *words)} for training")
        if folds.any():
            others.append("folds are not used without --fold")
    else:
        split = f"{config.test_fraction:.0%} of each class at random for test"
        if (given == TRAIN).any():
            others.append("since only a training split is given")
    groups = _groups(clips, parts)
    if not groups:
        groups = "none"
        if config.name == "folder":
            groups = "; ".join(_possible_groups(clips.names, clips.class_names))
    return {"split": "; ".join((split, *others)), "groups": groups}


def _groups(clips: Any, parts: SplitIndices) -> str:
    """Describes the known groups of clips; empty without any."""
    counts = collections.Counter[str]()
    for part in parts:
        counts.update(set(clips.groups[part].tolist()) - {""})
    if all(name.startswith(IDENTICAL) for name in counts):
        return ""
    divided = sum(count > 1 for count in counts.values())
    return f"{counted(len(counts), 'group')}, {divided or 'none'} divided"


def _possible_groups(names: Iterable[Any], class_names: Sequence[str]) -> list[str]:
    """Describes what names of files and classes tell about groups."""
    result = [
        "no groups: clips of one speaker or recording may be on both sides; name them "
        "in a column group"
    ]
    stems = [PurePath(str(name)).stem for name in names]
    starts = collections.Counter(re.sub(r"[ _.-]?[^ _.-]*$", "", s) for s in stems)
    shared = [start for start, count in starts.items() if count > 1 and len(start) > 3]
    if len(shared) > len(class_names):
        result.append(
            f"names of files share {len(shared)} beginnings, which may be recordings, "
            f"such as {shared[0]}"
        )
    # Actor_01 to Actor_24, but not 0 to 9.
    patterns = {re.sub(r"\d+", "0", name) for name in class_names}
    if len(patterns) == 1 and re.search(r"[^\W\d_]", class_names[0]):
        first, last = class_names[0], class_names[-1]
        result.append(f"{first} to {last}: are these speakers rather than classes?")
    return result


def _of_fold(
    folds: Int[np.ndarray, " clips"], config: DataConfig
) -> Bool[np.ndarray, " clips"]:
    """Marks the clips of the test fold; a single fold needs ``allow_partial``."""
    fold = config.fold or int(folds.max())
    if fold not in folds:
        available = ", ".join(map(str, np.unique(folds)))
        raise UserError(f"there is no fold {fold}; the data has folds {available}")
    is_test = folds == fold
    if is_test.all() and not config.allow_partial:
        raise UserError(
            f"the data has fold {fold} only, which leaves no training clips; "
            "--allow_partial splits it by source recording"
        )
    return is_test


def _warn(
    parts: SplitIndices,
    labels: Int[np.ndarray, "clips *c"],
    groups: Shaped[np.ndarray, " clips"],
) -> None:
    """Logs groups on both sides of the split, and classes without test clips."""
    train, validation, test = (
        {group for group in groups[part].tolist() if group} for part in parts
    )
    if shared := sorted((train | validation) & test):
        _log.warning(
            "%s clips on both sides of the given test split, "
            "which makes test scores too high: %s",
            counted(len(shared), *_HAVE),
            _some(shared),
        )
    elif shared := sorted(train & validation):
        _log.warning(
            "%s training and validation clips: %s",
            counted(len(shared), *_HAVE),
            _some(shared),
        )
    num_classes = labels.shape[1] if tags.are_tags(labels) else int(labels.max()) + 1
    train, _, test = (tags.counts(labels[part], num_classes) for part in parts)
    if count := int(((test == 0) & (train > 0)).sum()):
        _log.warning(
            "%d of %d classes have no test clips: accuracies cover only the others",
            count,
            num_classes,
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")
