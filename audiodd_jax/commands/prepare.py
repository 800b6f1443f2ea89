"""``audiodd prepare``: finds or downloads a dataset and caches its features."""

import time
from pathlib import Path

from audiodd_jax.command_line import CommandLine, table
from audiodd_jax.commands.common import start
from audiodd_jax.config import Config, fields
from audiodd_jax.data import splits
from audiodd_jax.features import cache, dataset
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.report import dataset_summary


def run(line: CommandLine) -> None:
    """Prepares the dataset of a command line and prints its contents."""
    config = line.configure_defaults()
    start(line.flags, config.data)
    began = time.perf_counter()
    features = cache.prepare(config.data, config.features)
    parts = splits.assign(
        features.labels, features.splits, features.folds, features.groups, config.data
    )
    rows = dataset_summary.summary(config.data.name, features, parts)
    table([*rows, ("took", f"{time.perf_counter() - began:.1f} s")])
    print("", *dataset_summary.class_counts(features, parts), sep="\n")
    if lines := dataset_summary.left_out(features):
        print("", *lines, sep="\n")


def prepare(config: Config, cache_dir: Path | None = None) -> Dataset:
    """Finds or downloads the dataset, computes and caches features, loads the splits.

    Raises:
      UserError: the dataset or its recordings cannot be used.
    """
    fields.validate(config)
    config = fields.with_cache(config, cache_dir)
    return dataset.load(config.data, config.features)
