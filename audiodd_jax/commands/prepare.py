"""The command ``audiodd prepare``."""

import time
from collections.abc import Sequence

from audiodd_jax.commands.common import cache_dir, start, table
from audiodd_jax.config import fields
from audiodd_jax.flags import parse


def prepare(argv: Sequence[str]) -> None:
    """Finds or downloads a dataset, checks it, and caches its features."""
    values, config, _ = parse.parse("prepare", argv, parse.dataset_config)
    fields.validate(config)
    from audiodd_jax.data import splits
    from audiodd_jax.features import cache
    from audiodd_jax.report import dataset_summary

    start(values)
    began = time.perf_counter()
    found = cache.prepare(config, cache_dir(values))
    parts = splits.assign(
        found.labels, found.splits, found.folds, found.groups, config.data
    )
    rows = dataset_summary.summary(config.data.name, found, parts)
    table([*rows, ("took", f"{time.perf_counter() - began:.1f} s")])
    print("", *dataset_summary.class_counts(found, parts), sep="\n")
    if lines := dataset_summary.left_out(found):
        print("", *lines, sep="\n")
