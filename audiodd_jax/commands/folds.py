"""The protocol of official folds: each is the test fold once, the others train."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from audiodd_jax.config import Config, DataConfig, FeaturesConfig, fields, presets
from audiodd_jax.config.names import DISTILLATION
from audiodd_jax.distillation import registry
from audiodd_jax.errors import UserError
from audiodd_jax.features import cache
from audiodd_jax.report import cards, tables
from audiodd_jax.runtime import multiprocess
from audiodd_jax.runtime.files import read_json, write_atomically
from audiodd_jax.runtime.run_directory import RunDirectory, run_once


def distill(
    config: Config, workdir: str | Path, distill_fold: Callable[[Config, Path], Any]
) -> dict[str, Any]:
    """Distils once per test fold, in ``workdir/fold1`` and so on.

    The same call resumes an interrupted run; finished folds are not repeated.

    Args:
      config: settings of every fold; ``data.fold`` is set to each fold in turn.
      workdir: the run directory.
      distill_fold: ``(config, workdir) -> Run``, the distillation of one fold.

    Returns:
      Contents of ``result.json``: mean, deviation, and one row per fold.

    Raises:
      UserError: bad settings or data, or data without folds.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    fields.validate(config)
    if config.labels.run or config.labels.indices:
        raise UserError(
            "acquired labels belong to the training clips of one test fold: give "
            "--fold its number"
        )
    workdir = Path(workdir)

    def work(run: RunDirectory) -> dict[str, Any]:
        registry.check_dataset(config.method, config.data)
        folds = _folds(config.data, config.features)
        run.start_from(-1)
        rows = []
        for fold in folds:
            one_fold = fields.replace(config, {"data.fold": fold})
            row = distill_fold(one_fold, workdir / f"fold{fold}").result
            rows.append(row)
            accuracies = ("test_accuracy", "start_test_accuracy")
            run.log({"step": fold, **{name: row[name] for name in accuracies}})
        result = _summary(rows)
        if multiprocess.is_process_zero():
            write_atomically(workdir / "README.md", cards.folds(result))
        return result

    record = {**fields.record(config, DISTILLATION), "folds": "all"}
    options = presets.run_options(config, DISTILLATION)
    return run_once(workdir, record, work, **options).result


def _folds(data: DataConfig, features: FeaturesConfig) -> list[int]:
    """Returns the numbers of a dataset's folds.

    Raises:
      UserError: the dataset has fewer than two.
    """
    folds = np.unique(cache.prepare(data, features).folds)
    folds = folds[folds > 0].tolist()
    if len(folds) < 2:
        raise UserError(
            f"--fold=all needs data with folds; {data.name} has "
            f"{len(folds) or 'none'} here"
        )
    return folds


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the means and deviations over the folds' results."""

    def column(name: str) -> list[float]:
        return [row[name] for row in rows]

    same = ("dataset", "dataset_version", "licence", "method", "samples_per_class")
    own = ("fold", "num_samples", "num_train", "test_accuracy", "start_test_accuracy")
    return {
        **{name: rows[0][name] for name in (*same, "seed", "protocol", "start")},
        "measure": tables.metric_of(rows),
        "test_accuracy": statistics.fmean(column("test_accuracy")),
        "test_accuracy_std": statistics.stdev(column("test_accuracy")),
        "start_test_accuracy": statistics.fmean(column("start_test_accuracy")),
        "start_test_accuracy_std": statistics.stdev(column("start_test_accuracy")),
        "wall_seconds": sum(column("wall_seconds")),
        "folds": [{name: row[name] for name in own} for row in rows],
    }


def directories(workdir: Path) -> list[Path]:
    """Returns the folds' run directories of a finished run of every fold, or none."""
    file = workdir / "result.json"
    if (workdir / "coreset.npz").exists() or not file.exists():
        return []
    folds = read_json(file).get("folds", [])
    return [workdir / f"fold{row['fold']}" for row in folds]
