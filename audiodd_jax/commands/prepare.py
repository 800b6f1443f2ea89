"""``audiodd prepare``: finds or downloads a dataset and caches its features."""

import time
from pathlib import Path

import numpy as np

from audiodd_jax.command_line import CommandLine, table
from audiodd_jax.commands.common import start
from audiodd_jax.config import Config, DataConfig, fields
from audiodd_jax.coreset import sizes
from audiodd_jax.data import datasets, splits, tags
from audiodd_jax.data.recordings import VALIDATION
from audiodd_jax.data.splits import SplitIndices
from audiodd_jax.features import cache, dataset, metric
from audiodd_jax.features.cache import FeatureSet
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.runtime.environment import standard_numerics

# Most files that are listed because they cannot be decoded.
_MAX_LISTED = 20


def run(line: CommandLine) -> None:
    """Prepares the dataset of a command line and prints its contents."""
    config = line.configure_defaults()
    start(line.flags, config.data)
    began = time.perf_counter()
    features = cache.prepare(config.data, config.features)
    parts = splits.assign(
        features.labels, features.splits, features.folds, features.groups, config.data
    )
    rows = _rows(config.data, config.evaluation.metric, features, parts)
    clips = tags.counts(features.labels[parts.train], len(features.class_names))
    coreset = config.coreset, config.method, clips, features.class_names
    if short := sizes.shortage(*coreset):
        rows.append(("short classes", short))
    table([*rows, ("took", f"{time.perf_counter() - began:.1f} s")])
    print("", *_class_counts(features, parts), sep="\n")
    if lines := _left_out(features):
        print("", *lines, sep="\n")


def _rows(
    data: DataConfig, scored_by: str, clips: FeatureSet, parts: SplitIndices
) -> list[tuple[str, str]]:
    """Returns rows of name and value: clips, classes, folds, audio, features."""
    title, config = datasets.lookup(data.name).title, clips.config
    if data.name == "folder":
        title = datasets.title_of(data)
    labelled, test = clips.labels[parts.train], clips.labels[parts.test]
    constant = metric.constant_answer(labelled, test, clips.class_names)
    seconds, size = float(clips.seconds.sum()), int(clips.raw_bytes.sum())
    folds = np.unique(clips.folds[clips.folds > 0])
    rates = ", ".join(map(str, np.unique(clips.rates)))
    tagged = ""
    if tags.are_tags(clips.labels):
        counts = clips.labels.sum(1)
        tagged = f"{counts.mean():.2f} per clip, at most {counts.max()}"
        if untagged := int((counts == 0).sum()):
            tagged += f"; {untagged:,} clips have none"
    is_drawn = not (clips.splits[parts.validation] == VALIDATION).any()
    train = parts.train.size + parts.validation.size * is_drawn
    has_fold = splits.decided_by_fold(clips.splits, clips.folds, data)
    tests = f"; test fold {clips.folds[parts.test[0]]}" if has_fold else ""
    rows = [
        ("dataset", f"{title}, {clips.version}"),
        ("licence", clips.licence),
        ("clips", f"{len(clips.labels):,}"),
        ("classes", f"{len(clips.class_names)}"),
        ("tags", tagged),
        ("largest class", metric.constant_in_words(constant)),
        ("metric", metric.name_of(labelled, len(clips.class_names), scored_by)),
        ("folds", f"{folds.size}{tests}" if folds.size else "none"),
        ("train / validation / test", " / ".join(f"{p.size:,}" for p in parts)),
        ("training split", f"{train:,} clips"),
        *splits.describe(clips, parts, data).items(),
        ("audio", f"{seconds:,.0f} s, {size / 1e6:,.1f} MB as 16-bit mono, {rates} Hz"),
        ("noise", "" if clips.noise is None else f"{len(clips.noise)} pieces"),
        ("skipped", f"{len(clips.skipped)}"),
        (
            "features",
            f"{config.n_mels} mel bins x {config.frames} frames of "
            f"{config.clip_seconds:g} s at {config.sample_rate} Hz",
        ),
        ("feature bytes", f"{clips.features.nbytes / 1e6:,.1f} MB"),
        ("cache", str(clips.path)),
    ]
    return [(name, value) for name, value in rows if value]


def _left_out(clips: FeatureSet) -> list[str]:
    """Returns a line per reason for unused files, with their number and an example."""
    rows = [(count, reason, example) for reason, count, example in clips.left_out]
    rows += [(1, "cannot be decoded", text) for text in clips.skipped[:_MAX_LISTED]]
    more = len(clips.skipped) - _MAX_LISTED
    rows += [(more, "cannot be decoded", "")] * (more > 0)
    lines = [f"  {count:>8,}  {reason}: {example}" for count, reason, example in rows]
    return ["left out:", *lines] if rows else []


def _class_counts(clips: FeatureSet, parts: SplitIndices) -> list[str]:
    """Returns a line per class with its clips in each split and fold."""
    count = lambda rows: tags.counts(clips.labels[rows], len(clips.class_names))
    by_split = [count(part) for part in parts]
    folds = np.unique(clips.folds[clips.folds > 0]).tolist()
    by_fold = [count(clips.folds == fold) for fold in folds]
    head = "clips per class (train / validation / test"
    if folds:
        head += f"; in folds {', '.join(map(str, folds))}"
    lines = [f"{head}):"]
    for label, name in enumerate(clips.class_names):
        in_splits = " / ".join(str(part[label]) for part in by_split)
        in_folds = " ".join(f"{part[label]:4d}" for part in by_fold)
        lines.append(f"  {name:24s} {in_splits:16s}  {in_folds}".rstrip())
    return lines


@standard_numerics()
def prepare(config: Config, cache_dir: Path | None = None) -> Dataset:
    """Finds or downloads the dataset, computes and caches features, loads the splits.

    Raises:
      UserError: the dataset or its recordings cannot be used.
    """
    fields.validate(config)
    config = fields.with_cache(config, cache_dir)
    return dataset.load(config.data, config.features, None, config.evaluation.metric)
