"""The summary of a prepared dataset, as rows to print."""

import numpy as np

from audiodd_jax.data import datasets, tags
from audiodd_jax.data.splits import SplitIndices
from audiodd_jax.features.cache import FeatureSet


def summary(name: str, found: FeatureSet, parts: SplitIndices) -> list[tuple[str, str]]:
    """Rows of name and value: clips, classes, folds, seconds, bytes, features."""
    entry = datasets.lookup(name)
    seconds, size = float(found.seconds.sum()), int(found.raw_bytes.sum())
    folds = np.unique(found.folds[found.folds > 0])
    rates = ", ".join(map(str, np.unique(found.rates)))
    noise = [] if found.noise is None else [("noise", f"{len(found.noise)} pieces")]
    tests = f"; test fold {found.folds[parts.test[0]]}" if folds.size else ""
    return [
        ("dataset", f"{entry.title}, {found.version}"),
        ("licence", found.licence),
        ("clips", f"{len(found.labels):,}"),
        ("classes", f"{len(found.class_names)}"),
        *_tags(found),
        ("folds", f"{folds.size}{tests}" if folds.size else "none"),
        ("train / validation / test", " / ".join(f"{p.size:,}" for p in parts)),
        ("audio", f"{seconds:,.0f} s, {size / 1e6:,.1f} MB as 16-bit mono, {rates} Hz"),
        *noise,
        ("skipped", f"{len(found.skipped)}"),
        (
            "features",
            f"{found.config.n_mels} mel bins x {found.config.frames} frames of "
            f"{found.config.clip_seconds:g} s at {found.config.sample_rate} Hz",
        ),
        ("feature bytes", f"{found.features.nbytes / 1e6:,.1f} MB"),
        ("cache", str(found.path)),
    ]


def _tags(found: FeatureSet) -> list[tuple[str, str]]:
    """How many tags clips have, if they have tags."""
    if not tags.are_tags(found.labels):
        return []
    each = found.labels.sum(1)
    text = f"{each.mean():.2f} per clip, at most {each.max()}"
    if without := int((each == 0).sum()):
        text += f"; {without:,} clips have none"
    return [("tags", text)]


def left_out(found: FeatureSet) -> list[str]:
    """A line per reason why files are not used, with their number and an example."""
    if not found.left_out and not found.skipped:
        return []
    rows = [(f"{count:,}", why, example) for why, count, example in found.left_out]
    rows += [("1", "cannot be decoded", reason) for reason in found.skipped[:20]]
    if more := len(found.skipped) - 20:
        rows += [(f"{more:,}", "cannot be decoded", "")] * (more > 0)
    return ["left out:", *(f"  {n:>8s}  {why}: {what}" for n, why, what in rows)]


def class_counts(found: FeatureSet, parts: SplitIndices) -> list[str]:
    """A line per class: its clips in each split and fold."""
    classes = len(found.class_names)
    count = lambda clips: tags.counts(found.labels[clips], classes)
    splits = [count(part) for part in parts]
    folds = np.unique(found.folds[found.folds > 0]).tolist()
    in_folds = [count(found.folds == fold) for fold in folds]
    head = "clips per class (train / validation / test"
    lines = [
        f"{head}; in folds {', '.join(map(str, folds))}):" if folds else f"{head}):"
    ]
    for label, name in enumerate(found.class_names):
        line = f"  {name:24s} {' / '.join(str(part[label]) for part in splits):16s}"
        if folds:
            line += "  " + " ".join(f"{part[label]:4d}" for part in in_folds)
        lines.append(line.rstrip())
    return lines
