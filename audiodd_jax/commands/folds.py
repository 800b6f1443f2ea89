"""The protocol of official folds: each is the test fold once, the others train."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from audiodd_jax.commands import evaluate as evaluate_lib
from audiodd_jax.commands.distill import check_labels
from audiodd_jax.commands.distill import distill as distill_once
from audiodd_jax.config import Config, fields, presets
from audiodd_jax.config.names import DISTILLATION
from audiodd_jax.coreset.dataset import coreset_config
from audiodd_jax.coreset.file import load_coreset
from audiodd_jax.errors import UserError
from audiodd_jax.features import cache
from audiodd_jax.report import cards, tables
from audiodd_jax.report.evaluation_table import Row
from audiodd_jax.runtime import multiprocess
from audiodd_jax.runtime.files import read_json, write_atomically
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.training.scores import Evaluation


class FoldsRun(NamedTuple):
    """A finished run of every fold.

    Attributes:
      result: of ``result.json``: mean and deviation, and one row per fold.
      path: the run directory, with a run directory per fold.
    """

    result: dict[str, Any]
    path: Path


def distill(
    config: Config, workdir: str | Path, cache_dir: Path | None = None
) -> FoldsRun:
    """Distils once per test fold, in ``workdir/fold1`` and so on.

    The same call resumes an interrupted run; finished folds are not repeated.

    Raises:
      UserError: bad settings or data, or data without folds.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    fields.validate(config)
    if config.labels.run or config.labels.indices:
        raise UserError(
            "bought labels are training clips of one test fold: give --fold its number"
        )
    workdir = Path(workdir)
    check_labels(config, workdir, cache_dir)
    kept = fields.record(config, DISTILLATION)
    options = presets.run_options(config, DISTILLATION)
    with RunDirectory(workdir, {**kept, "folds": "all"}, **options) as run:
        if result := run.result():
            return FoldsRun(result, workdir)
        folds = np.unique(cache.prepare(config, cache_dir).folds)
        folds = folds[folds > 0].tolist()
        if len(folds) < 2:
            raise UserError(
                f"--fold=all needs data with folds; {config.data.name} has "
                f"{len(folds) or 'none'} here"
            )
        run.start_from(-1)
        rows = []
        for fold in folds:
            one = fields.replace(config, {"data.fold": fold})
            found = distill_once(one, workdir / f"fold{fold}", cache_dir).result
            rows.append(found)
            accuracies = ("test_accuracy", "start_test_accuracy")
            run.log({"step": fold, **{name: found[name] for name in accuracies}})
        result = _summary(rows)
        if multiprocess.is_process_zero():
            write_atomically(workdir / "README.md", cards.folds(result))
        run.finish(result)
        return FoldsRun(result, workdir)


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    column = lambda name: [row[name] for row in rows]
    same = ("dataset", "dataset_version", "licence", "method", "samples_per_class")
    kept = ("fold", "num_samples", "num_train", "test_accuracy", "start_test_accuracy")
    return {
        **{name: rows[0][name] for name in (*same, "seed", "protocol", "start")},
        "measure": tables.metric_of(rows),
        "test_accuracy": statistics.fmean(column("test_accuracy")),
        "test_accuracy_std": statistics.stdev(column("test_accuracy")),
        "start_test_accuracy": statistics.fmean(column("start_test_accuracy")),
        "start_test_accuracy_std": statistics.stdev(column("start_test_accuracy")),
        "wall_seconds": sum(column("wall_seconds")),
        "folds": [{name: row[name] for name in kept} for row in rows],
    }


def fold_directories(workdir: Path) -> list[Path]:
    """The folds' run directories in a finished run of every fold, or none."""
    file = workdir / "result.json"
    if (workdir / "coreset.npz").exists() or not file.exists():
        return []
    folds = read_json(file).get("folds", [])
    return [workdir / f"fold{row['fold']}" for row in folds]


def evaluate(
    workdir: Path,
    protocols: Sequence[str] = ("krr",),
    against: Sequence[str] = (),
    config: Config | None = None,
    changes: dict[str, Any] | None = None,
    out: Path | None = None,
    cache_dir: Path | None = None,
) -> list[Row]:
    """Scores each fold's coreset on its own test fold; one accuracy per fold.

    Args:
      workdir: of a finished run of every fold.
      protocols: as in ``evaluate.evaluate``.
      against: as in ``evaluate.evaluate``.
      config: data and evaluation; None: as it was distilled.
      changes: settings that override each protocol's recipe.
      out: folder of the trainings; None: memory only.
      cache_dir: folder of downloads and features.
    """
    found = []
    for folder in fold_directories(workdir):
        coreset = load_coreset(folder / "coreset.npz")
        fold = coreset.metadata["split"]["fold"]
        one = config or coreset_config(coreset)
        one = fields.replace(one, {"data.fold": fold})
        place = out / f"fold{fold}" if out else None
        found.append(
            evaluate_lib.evaluate(
                coreset, protocols, against, one, changes, place, cache_dir
            )
        )
    return [_over_folds(rows) for rows in zip(*found, strict=True)]


def _over_folds(rows: Sequence[Row]) -> Row:
    """One row of the table; its accuracies are the means of the folds."""
    means = tuple(row.scores.mean for row in rows)
    first = rows[0].scores
    scores = Evaluation(first.protocol, means, metric=first.metric)
    return rows[0]._replace(scores=scores, seconds=sum(row.seconds for row in rows))
