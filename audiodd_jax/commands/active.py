"""The jobs of ``audiodd active``: one acquisition function, or a comparison."""

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from audiodd_jax.active_learning import budgets, query, rounds
from audiodd_jax.commands import recorded_training
from audiodd_jax.config import Config, fields, presets
from audiodd_jax.config.names import ACTIVE
from audiodd_jax.coreset.dataset import check_coreset, load_data
from audiodd_jax.coreset.file import Coreset
from audiodd_jax.errors import UserError
from audiodd_jax.features import dataset
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.report import cards, learning_curves, tables
from audiodd_jax.report.learning_curves import Curve, Point
from audiodd_jax.runtime.files import atomic, write_atomically, write_json
from audiodd_jax.runtime.run_directory import RunDirectory


class Comparison(NamedTuple):
    """Acquisition functions compared with each other and with coresets.

    Attributes:
      curves: of the functions.
      points: of the coresets, by size.
      table: as Markdown, with a sentence per coreset.
    """

    curves: list[Curve]
    points: list[Point]
    table: str


def learn(config: Config, data: Dataset, workdir: Path) -> dict[str, Any]:
    """Runs one acquisition function over its budgets.

    The same call resumes an interrupted run, and returns a finished one.

    Returns:
      The contents of ``result.json``.

    Args:
      config: model, training, acquisition and the seed.
      data: the prepared dataset.
      workdir: the run directory.

    Raises:
      UserError: bad settings, or a folder that holds something else.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    fields.validate(config)
    kept = fields.record(config, ACTIVE)
    with RunDirectory(workdir, kept, **presets.run_options(config, ACTIVE)) as run:
        if result := run.result():
            return result
        run.use_data(data.clips_digest)
        learnt = rounds.label_rounds(config, data, run)
        with atomic(run.path / "labelled.npy") as file:
            np.save(file, learnt.labelled)
        result = _result(config, data, learnt)
        folder = run.path / "figures"
        folder.mkdir(exist_ok=True)
        learning_curves.draw(
            [learning_curves.curve(config.active.acquisition, [result])],
            [],
            data.num_train,
            f"{data.name}, {config.model.name}",
            folder / "learning_curve.png",
            metric=data.metric,
        )
        text = cards.active_learning(result, config.active)
        write_atomically(run.path / "README.md", text)
        run.finish(result)
        return result


def _result(config: Config, data: Dataset, learnt: rounds.Learnt) -> dict[str, Any]:
    active = config.active
    size = lambda text: budgets.clips(text, data.num_train, data.num_classes)
    last = learnt.rounds[-1]
    uses_passes = query.uses_passes(active.acquisition)
    return {
        **data.origin,
        "acquisition": active.acquisition,
        "model": config.model.name,
        "class_names": data.class_names,
        "budgets": {text: size(text) for text in active.budgets},
        "passes": active.passes if uses_passes else 0,
        "num_train": data.num_train,
        "num_validation": len(data.validation.labels),
        "seed": config.seed,
        "num_samples": last["labelled"],
        "test_accuracy": last["test_accuracy"],
        "wall_seconds": last["seconds"],
        "rounds": learnt.rounds,
    }


def load(
    config: Config, coresets: Sequence[Coreset], cache_dir: Path | None = None
) -> Dataset:
    """The dataset, preprocessed as the coresets that it is compared with.

    Args:
      config: of the data; with coresets, their feature settings are used.
      coresets: may be empty.
      cache_dir: folder of downloads and features.

    Raises:
      UserError: the dataset cannot be used, or a coreset has another dataset or other
        preprocessing than the first.
    """
    fields.validate(config)
    if not coresets:
        return dataset.load(config, cache_dir)
    config = dataclasses.replace(config, features=coresets[0].features)
    data = load_data(coresets[0], config, True, cache_dir)
    for other in coresets[1:]:
        same = other.features == coresets[0].features and all(
            np.array_equal(a, b)
            for a, b in zip(other.normalization, coresets[0].normalization, strict=True)
        )
        check_coreset(other, data)
        if not same:
            raise UserError(
                "the coresets have different features or normalisations, so no pool "
                "of clips can be compared with all of them"
            )
    return data


def compare(
    config: Config,
    acquisitions: Sequence[str],
    num_seeds: int,
    coresets: Sequence[Coreset],
    data: Dataset,
    workdir: Path,
) -> Comparison:
    """Runs several functions and seeds, and trains on coresets by the same recipe.

    Finished runs are not repeated, and interrupted ones resume. Several coresets of one
    size count as seeds: each trains one network. A single one trains a network per
    seed.

    Args:
      config: model, training, budgets and the first seed.
      acquisitions: names of functions.
      num_seeds: of each function.
      coresets: to compare with; may be empty.
      data: as ``load`` returns it.
      workdir: folder of the runs, the table and the figure.

    Raises:
      UserError: bad settings, or a folder that holds something else.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    if (workdir / ".lock").exists():
        raise UserError(
            f"{workdir} holds a single run; choose another folder for a comparison"
        )
    if coresets:
        config = dataclasses.replace(config, features=data.features)
    seeds = [config.seed + i for i in range(num_seeds)]
    points = _points(config, coresets, seeds, data, workdir)
    found: dict[str, list[dict]] = {name: [] for name in acquisitions}
    # Seeds in the outer loop, so that an interrupted comparison has every function.
    for seed in seeds:
        for name in acquisitions:
            changes = {"active.acquisition": name, "seed": seed}
            one = fields.replace(config, changes)
            found[name].append(learn(one, data, workdir / f"{name}-seed{seed}"))
    curves = [learning_curves.curve(name, results) for name, results in found.items()]
    first = found[acquisitions[0]][0]
    counts = [first["rounds"][0]["counted"], *first["budgets"].values()]
    rows = learning_curves.table(curves, points, counts, data.num_train)
    sentences = learning_curves.summary_sentences(curves, points)
    table = "\n\n".join([tables.markdown(rows), *sentences])
    _write(config, data, curves, points, table, workdir)
    return Comparison(curves, points, table)


def _points(
    config: Config,
    coresets: Sequence[Coreset],
    seeds: Sequence[int],
    data: Dataset,
    workdir: Path,
) -> list[Point]:
    """Networks trained on coresets, grouped by size."""
    sizes: dict[int, list[Coreset]] = {}
    for coreset in coresets:
        sizes.setdefault(coreset.labels.shape[0], []).append(coreset)
    points = []
    for clips, alike in sorted(sizes.items()):
        pairs = list(enumerate(alike))
        pairs = [(config.seed + i, c) for i, c in pairs]
        if len(alike) == 1:
            pairs = [(seed, alike[0]) for seed in seeds]
        trained = []
        for seed, coreset in pairs:
            source = recorded_training.coreset_source(coreset.unpack())
            one = fields.replace(config, {"seed": seed})
            folder = workdir / f"coreset{clips}-seed{seed}"
            trained.append(recorded_training.train(one, data, source, folder))
        accuracies = [t.scores.mean for t in trained]
        seconds = statistics.fmean(t.result["wall_seconds"] for t in trained)
        points.append(Point(clips, tuple(accuracies), seconds))
    return points


def _write(
    config: Config,
    data: Dataset,
    curves: Sequence[Curve],
    points: Sequence[Point],
    table: str,
    workdir: Path,
) -> None:
    """Writes ``comparison.json``, ``README.md`` and the figure."""
    workdir.mkdir(parents=True, exist_ok=True)
    title = f"{data.name}, {config.model.name}"
    learning_curves.draw(
        curves,
        points,
        data.num_train,
        title,
        workdir / "learning_curves.png",
        metric=data.metric,
    )
    values = {
        "dataset": data.name,
        "model": config.model.name,
        "num_train": data.num_train,
        "curves": [
            {**curve._asdict(), "accuracies": curve.accuracies.tolist()}
            for curve in curves
        ],
        "coresets": [point._asdict() for point in points],
    }
    write_json(workdir / "comparison.json", values)
    parts = [
        f"# {title}: which clips to label",
        f"{data.metric.capitalize()} on the test split in %, mean ± standard "
        "deviation over seeds; s: "
        "seconds of one run over all budgets, or of one training on the coreset.",
        table,
        f"![{data.metric} against labels](learning_curves.png)",
        f"Licence of the data: {data.licence}",
    ]
    write_atomically(workdir / "README.md", "\n\n".join(parts) + "\n")
