"""``audiodd distill``: distils a dataset to a coreset, scores it and draws it."""

import dataclasses
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from audiodd_jax.active_learning import labelled_subset
from audiodd_jax.command_line import CommandLine, percent, table
from audiodd_jax.commands.common import resumable, start, target
from audiodd_jax.config import Config, fields, presets
from audiodd_jax.config.names import SELECTION
from audiodd_jax.config.packing import Packing
from audiodd_jax.config.user_paths import local
from audiodd_jax.coreset import budget
from audiodd_jax.coreset import dataset as coreset_data
from audiodd_jax.coreset import sizes as coreset_sizes
from audiodd_jax.coreset.file import Coreset, load_coreset
from audiodd_jax.data import datasets
from audiodd_jax.distillation import loop, registry
from audiodd_jax.errors import UserError
from audiodd_jax.features import cache, dataset, encoders
from audiodd_jax.features.dataset import Dataset, Encoded
from audiodd_jax.features.encoders import Embedder
from audiodd_jax.features.metric import score_of
from audiodd_jax.forecast import estimates
from audiodd_jax.forecast.workload import measure
from audiodd_jax.kernels.ridge import Scoring
from audiodd_jax.networks.encoder import Encoder
from audiodd_jax.report import cards, distilled, tables
from audiodd_jax.runtime import multiprocess, progress
from audiodd_jax.runtime.environment import standard_numerics
from audiodd_jax.runtime.files import write_atomically
from audiodd_jax.runtime.run_directory import RunDirectory, run_once
from audiodd_jax.training import evaluation, teacher


def run(line: CommandLine) -> None:
    """Distils as the command line says, and prints the result."""
    flags = line.flags
    earlier = flags["continue"].value
    config = line.configure_defaults(continued(earlier) if earlier else {})
    chips = target(flags, "distill")
    start(flags, config.data)
    if flags.dry_run:
        if config.method in SELECTION:
            raise UserError(
                f"{config.method} selects clips: there is no step to forecast"
            )
        if config.encoder.name:
            raise UserError("--dry_run does not forecast the steps of an encoder")
        with standard_numerics(config.rfad.is_float64):
            work = measure(config, chips)
            if limit := config.coreset.budget:
                chosen = {name: fields.get(work.config, name) for name in budget.NAMES}
                table([("budget", f"{limit}: {budget.in_words(chosen)}")])
            if work.config.method not in SELECTION:
                rows = estimates.distillation(work, chips) if chips else None
                table(rows or estimates.local(work))
        return
    title = datasets.title_of(config.data)
    data_name = "-".join(filter(None, (title, config.data.variant)))
    fold = f"-fold{flags.fold}" if flags.fold else ""
    coreset = config.coreset
    size = coreset.budget or coreset.samples_per_class
    size = size or f"{coreset.samples}-{coreset.spread}"
    default = f"{data_name}{fold}-{config.method}-{size}-seed{config.seed}"
    workdir = Path(flags.workdir or Path("runs") / default)
    is_all = flags.fold == "all"
    with resumable(workdir, is_run=True):
        if is_all:
            result = distill_folds(config, workdir)
        else:
            result = distill(config, workdir).result
    show = _show_folds if is_all else _show
    show(result, workdir)


def continued(coreset: str) -> dict[str, Any]:
    """Returns the settings that a coreset fixes for one that continues from it.

    Raises:
      UserError: the file is not a coreset.
    """
    earlier = load_coreset(coreset)
    features = dataclasses.asdict(earlier.features)
    settings = {f"features.{name}": value for name, value in features.items()}
    return {**settings, "coreset.factor": earlier.packing.setting}


class Run(NamedTuple):
    """A finished run: its coreset, contents of ``result.json``, and directory."""

    coreset: Coreset
    result: dict[str, Any]
    path: Path


def distill(
    config: Config,
    workdir: str | Path,
    cache_dir: Path | None = None,
    mesh: Mesh | None = None,
) -> Run:
    """Distils ``config.data`` to a coreset in ``workdir``, scores it and draws it.

    The same call resumes an interrupted run, and returns a finished one.

    Args:
      config: the whole configuration, as ``for_dataset`` makes it.
      cache_dir: folder for downloads and features; None: ``config.data.cache_dir``.
      mesh: devices of the run (``runtime.devices.make_mesh``); None: all devices of all
        processes. Results depend on it by rounding only.

    Returns:
      The finished run: ``coreset``, also in the file ``coreset.npz``; ``result``, the
      contents of ``result.json``, such as ``result["test_accuracy"]``; and ``path``,
      the run directory.

    Raises:
      UserError: bad settings or data, or a folder that holds something else.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    config = fields.with_cache(config, cache_dir)
    fields.validate(config)
    encoder = encoders.load(config.encoder)
    features = encoders.front_end(config.features, encoder)
    config = dataclasses.replace(config, features=features)
    is_continued = config.coreset.init.endswith(".npz")
    earlier, coreset = Path(config.coreset.init), None

    def load(by: Encoder | None = None) -> Dataset:
        registry.check_dataset(config.method, config.data)
        settings = dataclasses.replace(config.data, one_class=is_continued)
        given = (settings, config.features, None, config.evaluation.metric, by)
        loaded = dataset.load(*given, with_unlabelled=bool(config.labels.run))
        loaded = labelled_subset.restrict(config, loaded)
        if not is_continued:
            return loaded
        loaded = coreset_data.replayed(earlier, loaded)
        if loaded.num_replayed and config.teacher.networks:
            raise UserError(
                "a teacher needs recordings of all classes of the earlier coreset: "
                "--config.teacher.networks=0"
            )
        return loaded

    if config.coreset.budget:
        settings = fields.record(config, fields.DISTILLATION)
        config = fields.replace(config, budget.changes(settings, load()))

    def work(run: RunDirectory) -> dict[str, Any]:
        nonlocal coreset
        is_embedded = encoder and config.encoder.distil == "embeddings"
        data = load(encoder if is_embedded else None)
        run.use_data(data.clips_digest)
        encoded = None
        if encoder:
            clips = data if is_embedded else load(encoder)
            stats = data.normalization, clips.normalization
            encoded = Encoded(clips, Embedder(encoder, *stats))
        initial = None
        if is_continued:
            sizes = coreset_sizes.of_classes(
                config.coreset, config.method, data.class_clips, data.class_names
            )
            given = config.coreset, data, sizes, config.seed
            initial = coreset_data.warm_start(earlier, *given)
        ensemble = None
        if config.is_aligned:
            folder = teacher.trained(config, data)
            ensemble = teacher.ensemble(folder, config.teacher.temperature)
        outcome = loop.distill(config, data, run, mesh, initial, ensemble, encoded)
        coreset, result = _finish(outcome, data, config, run.path, mesh, encoded)
        return result

    record = fields.record(config, fields.DISTILLATION)
    options = presets.run_options(config, fields.DISTILLATION)
    with standard_numerics(config.rfad.is_float64):
        result, path = run_once(local(workdir), record, work, **options)
    return Run(coreset or load_coreset(path / "coreset.npz"), result, path)


def distill_folds(config: Config, workdir: Path) -> dict[str, Any]:
    """Distils once per fold, the test fold of the run ``workdir/fold1`` etc.

    The same call resumes an interrupted run; finished folds are not repeated. Returns
    the contents of ``result.json``: mean, deviation, and one row per fold. Raises what
    ``distill`` raises, and UserError for data without folds.
    """
    fields.validate(config)
    if config.labels.run or config.labels.indices:
        raise UserError(
            "acquired labels belong to the training clips of one test fold: give "
            "--fold its number"
        )

    def work(run: RunDirectory) -> dict[str, Any]:
        registry.check_dataset(config.method, config.data)
        folds = np.unique(cache.prepare(config.data, config.features).folds)
        folds = folds[folds > 0].tolist()
        if len(folds) < 2:
            title = datasets.title_of(config.data)
            raise UserError(
                f"--fold=all needs data with folds; {title} has "
                f"{len(folds) or 'none'} here"
            )
        run.start_from(-1)
        rows = []
        for fold in folds:
            one_fold = fields.replace(config, {"data.fold": fold})
            row = distill(one_fold, workdir / f"fold{fold}").result
            rows.append(row)
            run.log({"step": fold, **tables.means(row)})
        result = _over_folds(rows)
        if multiprocess.is_process_zero():
            are_official = datasets.lookup(config.data.name).folds > 0
            card = cards.folds(result, are_official)
            write_atomically(workdir / "README.md", card)
        return result

    record = {**fields.record(config, fields.DISTILLATION), "folds": "all"}
    options = presets.run_options(config, fields.DISTILLATION)
    with standard_numerics(config.rfad.is_float64):
        return run_once(workdir, record, work, **options).result


def _over_folds(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the means and deviations over the folds' results."""
    same = ("dataset", "dataset_version", "licence", "method", "samples_per_class")
    scores = tables.means(rows[0])
    own = ("fold", "measure", "num_samples", "num_train", *scores)
    result = {name: rows[0][name] for name in (*same, "seed", "protocol", "start")}
    result["measure"] = result["metric"] = tables.metric_of(rows)
    for name in scores:
        accuracies = [row[name] for row in rows]
        result[name] = statistics.fmean(accuracies)
        result[f"{name}_std"] = statistics.stdev(accuracies)
    result["wall_seconds"] = sum(row["wall_seconds"] for row in rows)
    groups = dict.fromkeys(row.get("groups", "") for row in rows)
    result["groups"] = "; ".join(filter(None, groups))
    result["folds"] = [{name: row[name] for name in own} for row in rows]
    return result


def _finish(
    outcome: loop.Distilled,
    data: Dataset,
    config: Config,
    folder: Path,
    mesh: Mesh | None,
    encoded: Encoded | None = None,
) -> tuple[Coreset, dict[str, Any]]:
    """Labels, scores and draws a coreset, and writes its file and card."""
    embed, test = None, data.test
    if encoded:
        embed, test = encoded.embed, encoded.data.test
    made = lambda arrays: distilled.coreset_of(
        arrays, outcome.classes, data, config, embed
    )
    coreset = made(outcome.best)
    labelling = None
    if config.teacher.networks:
        images = coreset.unpack().images
        labelled = teacher.label(images, config, data, coreset.layers)
        coreset = distilled.with_views(coreset, labelled)
        labelling = labelled.record
    # Both as their files give them back.
    final = coreset.unpack()
    initial = made(outcome.start).unpack()
    scoring = Scoring.from_config(config, is_test=True)._replace(embed=embed)
    # With an encoder nothing is random.
    seeds = range(1 if embed else config.evaluation.seeds)
    scores = evaluation.kernel_regression([final, initial], test, scoring, seeds, mesh)
    scores = [one._replace(metric=data.metric) for one in scores]
    result = distilled.result(outcome, scores, coreset, data)
    result["teacher"] = labelling
    if multiprocess.is_process_zero():
        coreset.save(folder / "coreset.npz")
        with progress.waiting("drawing"):
            pictures = folder / "figures"
            drawn = initial, final, coreset.unpacked_classes
            distilled.draw(*drawn, outcome.history, data, result, pictures)
        card = cards.distillation(result, scores, coreset, data)
        write_atomically(folder / "README.md", card)
    return coreset, result


def _show(result: dict[str, Any], path: Path) -> None:
    """Prints the result of a run."""
    metric = tables.metric_of([result])
    is_distilled = result["steps"] > 0
    in_each = Packing.parse(result.get("factor", 1)).per_image
    baseline = "initial coreset" if is_distilled else "same number of random clips"
    packed = f", {in_each} in each" if in_each > 1 else ""
    draws = len(result["test_accuracies"])
    drawn = f" over {draws} draws of networks, on one split" * (draws > 1)
    before, teaching = tables.beside([result], "start_"), ""
    if record := result.get("teacher"):
        views = result["views"]
        images = f"{views} views of each spectrogram" if views else "each spectrogram"
        teaching = (
            f"{record['seconds']:.0f} s of training, once; labelled {images} in "
            f"{record['labelling_seconds']:.0f} s"
        )
    rows = [
        ("coreset", f"{result['num_samples']} spectrograms{packed}, "
         f"{tables.per_class(result)} per class: "
         f"{percent(result['fraction_of_train'])} of the {result['num_train']:,} clips "
         "in the training split"),
        ("short classes", result.get("short_classes", "")),
        ("labels", cards.labels_in_words(result)),
        ("bytes", tables.bytes_in_words(result)),
        (f"test {metric}, {'distilled' if is_distilled else 'selected clips'}",
         f"{tables.mean_std(score_of(result, 'test_accuracies'))} %{drawn}"),
        (f"test {metric}, {cards.initial_in_words(result)}",
         f"{100 * score_of(result, 'start_test_accuracy'):.1f} % (the {baseline})"),
        *((name, f"{text}, before {before.get(name)}")
          for name, text in tables.beside([result]).items()),
        ("protocol", f"{result['protocol']}, {draws} seeds"),
        ("distillation", f"{result['method']}, {result['steps']} steps, "
         f"{result['wall_seconds']:.0f} s"),
        ("teacher", teaching),
        ("artefact", str(path / "coreset.npz")),
        ("pictures", str(path / "figures")),
        ("card", str(path / "README.md")),
    ]  # fmt: skip
    table([(name, value) for name, value in rows if value])
    if warning := cards.warning(result):
        print("", warning, sep="\n")


def _show_folds(result: dict[str, Any], path: Path) -> None:
    """Prints the result of a run over all folds."""
    metric, rows = tables.metric_of([result]), result["folds"]

    def spread(name: str) -> str:
        mean, std = (score_of(result, one) for one in (name, name + "_std"))
        return f"{100 * mean:.1f} ± {100 * std:.1f} %"

    each = ", ".join(f"{100 * score_of(row):.1f}" for row in rows)
    before = f"test {metric}, {cards.initial_in_words(result)}"
    lines = [
        ("folds", f"{len(rows)}, each the test fold once"),
        (f"test {metric}, distilled", spread("test_accuracy")),
        ("each fold", f"{each} %"),
        (before, spread("start_test_accuracy")),
        *tables.beside([result]).items(),
        ("protocol", result["protocol"]),
        ("distillation", f"{result['wall_seconds']:.0f} s"),
        ("each fold's run", f"{path / 'fold'}{rows[0]['fold']} and so on"),
        ("card", str(path / "README.md")),
    ]
    table(lines)
