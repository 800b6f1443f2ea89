"""``audiodd active``: labels clips round by round, and tests networks on them."""

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiodd_jax.active_learning import query, rounds
from audiodd_jax.command_line import CommandLine, names, table
from audiodd_jax.commands.common import resumable, start, target
from audiodd_jax.commands.train import train_source
from audiodd_jax.config import (
    Config,
    DataConfig,
    FeaturesConfig,
    extensions,
    fields,
    presets,
)
from audiodd_jax.config.names import (
    ACQUISITIONS,
    COVERING,
    DIVERSE,
    DIVERSE_BATCHES,
    file_stem,
)
from audiodd_jax.config.user_paths import local
from audiodd_jax.coreset.dataset import check_coreset, coreset_config, load_data
from audiodd_jax.coreset.file import Coreset, load_coreset
from audiodd_jax.data import datasets
from audiodd_jax.errors import UserError
from audiodd_jax.features import dataset, encoders
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.features.metric import score_of
from audiodd_jax.forecast import estimates
from audiodd_jax.forecast.workload import measure
from audiodd_jax.networks.encoder import Encoder
from audiodd_jax.report import cards, learning_curves, tables
from audiodd_jax.report.learning_curves import Curve, Point
from audiodd_jax.runtime import mirror
from audiodd_jax.runtime.environment import standard_numerics
from audiodd_jax.runtime.files import atomic, write_atomically, write_json
from audiodd_jax.runtime.run_directory import RunDirectory, run_once
from audiodd_jax.training import source as source_lib

# Candidates of a diverse batch, per clip that it takes (Zhdanov 2019).
_FACTOR = 10


def run(line: CommandLine) -> None:
    """Runs active learning as the command line says, and prints the rounds."""
    flags = line.flags
    coresets = [load_coreset(path) for path in names(flags.coreset or "")]
    if coresets:
        base = presets.for_active(coreset_config(coresets[0]), flags.model)
        config = line.configure(base)
    else:
        config = line.configure_defaults()
    if flags.fold == "all":
        raise UserError("active tests on one fold: --fold takes its number")
    if flags.num_seeds < 1:
        raise UserError("num_seeds must be at least 1")
    functions = _acquisitions(flags.acquisition or config.active.acquisition)
    first = _settings(functions[0])
    config = fields.replace(config, {"active.acquisition": first["active.acquisition"]})
    chips = target(flags, "active")
    start(flags, config.data)
    if chips:
        table(estimates.active(measure(config, chips), chips))
        return
    is_comparison = len(functions) > 1 or flags.num_seeds > 1 or bool(coresets)
    name = f"{'comparison' if is_comparison else functions[0]}-seed{config.seed}"
    network = file_stem(config.model.name)
    title = datasets.title_of(config.data)
    default = Path("runs") / f"{title}-active-{network}-{name}"
    workdir = Path(flags.workdir or default)
    with resumable(workdir, is_run=not is_comparison):
        encoder = encoders.of_head(config.encoder, config.model.name)
        if encoder and coresets:
            raise UserError("active compares coresets without --encoder")
        features = encoders.front_end(config.features, encoder)
        config = dataclasses.replace(config, features=features)
        metric = config.evaluation.metric
        data = load(config.data, config.features, coresets, metric, encoder)
        if is_comparison:
            text = compare(config, functions, flags.num_seeds, coresets, data, workdir)
        else:
            result = learn(fields.replace(config, first), data, workdir)
    if is_comparison:
        print(text, "", sep="\n")
        table([("table and picture", str(workdir))])
    else:
        _show(result, workdir)


def _acquisitions(text: str) -> list[str]:
    """Returns the acquisition functions that ``--acquisition`` names."""
    known = (*ACQUISITIONS, *extensions.names(extensions.ACQUISITIONS))
    others = ("random", *DIVERSE, *COVERING)
    diverse = [name + DIVERSE_BATCHES for name in known if name not in others]
    functions = list(ACQUISITIONS) if text == "all" else names(text)
    for name in functions:
        if name not in (*known, *diverse):
            raise UserError(
                f"there is no acquisition function {name!r}; choose from "
                f"{', '.join(known)}, a score with {DIVERSE_BATCHES}, or all"
            )
    if len(set(functions)) < len(functions) or not functions:
        raise UserError("--acquisition names each function once, and at least one")
    return functions


def _settings(function: str) -> dict[str, Any]:
    """Returns the settings of a function that ``--acquisition`` names."""
    name = function.removesuffix(DIVERSE_BATCHES)
    diversity = {} if name == function else {"active.diversity": _FACTOR}
    return {"active.acquisition": name, **diversity}


@standard_numerics()
def active(
    config: Config, workdir: str | Path, cache_dir: Path | None = None
) -> dict[str, Any]:
    """Runs active learning; returns the contents of ``result.json``.

    The same call resumes an interrupted run, and returns a finished one.

    Args:
      config: a configuration made by ``for_active``.
      cache_dir: folder for downloads and features; None: ``config.data.cache_dir``.

    Raises:
      UserError: bad settings or data, or a folder that holds something else.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    config = fields.with_cache(config, cache_dir)
    fields.validate(config)
    encoder = encoders.of_head(config.encoder, config.model.name)
    features = encoders.front_end(config.features, encoder)
    config = dataclasses.replace(config, features=features)
    data = load(config.data, features, (), config.evaluation.metric, encoder)
    return learn(config, data, local(workdir))


def load(
    data: DataConfig,
    features: FeaturesConfig,
    coresets: Sequence[Coreset] = (),
    scored_by: str = "auto",
    encoder: Encoder | None = None,
) -> Dataset:
    """Loads the dataset, preprocessed like the coresets to compare with, if any.

    ``scored_by`` is the setting ``evaluation.metric``. With an encoder, clips are its
    embeddings.

    Raises:
      UserError: the dataset cannot be used, or a coreset has another dataset or other
        preprocessing than the first.
    """
    if not coresets:
        loaded = dataset.load(data, features, None, scored_by, encoder)
        return rounds.by_known_labels(loaded)
    first = coresets[0]
    loaded = load_data(first, data, first.features, True, scored_by)
    for other in coresets[1:]:
        pairs = zip(other.normalization, first.normalization, strict=True)
        check_coreset(other, loaded)
        if other.features != first.features or not all(
            np.array_equal(a, b) for a, b in pairs
        ):
            raise UserError(
                "the coresets have different features or normalisations, so no pool "
                "of clips can be compared with all of them"
            )
    return rounds.by_known_labels(loaded)


def learn(config: Config, data: Dataset, workdir: Path) -> dict[str, Any]:
    """Runs one acquisition function over its budgets, as ``active`` does."""
    fields.validate(config)

    def work(run: RunDirectory) -> dict[str, Any]:
        run.use_data(data.clips_digest)
        learnt = rounds.label_rounds(config, data, run)
        with atomic(run.path / "labelled.npy") as file:
            np.save(file, learnt.labelled)
        active, last = config.active, learnt.rounds[-1]
        has_passes = query.uses_passes(active.acquisition)
        result = {
            **data.origin,
            "acquisition": active.acquisition,
            "class_names": data.class_names,
            "budgets": {
                text: rounds.clips_in(text, data.num_train, data.num_classes)
                for text in active.budgets
            },
            "passes": active.passes if has_passes else 0,
            "num_train": data.num_train,
            "num_validation": len(data.validation.labels),
            "num_samples": last["labelled"],
            **tables.means(last),
            "wall_seconds": last["seconds"],
            "rounds": learnt.rounds,
            "model": config.model.name,
            "seed": config.seed,
        }
        folder = run.path / "figures"
        folder.mkdir(exist_ok=True)
        learning_curves.draw(
            [learning_curves.curve(active.acquisition, [result])],
            [],
            data.num_train,
            f"{data.title}, {config.model.name}",
            folder / "learning_curve.png",
            metric=data.metric,
        )
        card = cards.active_learning(result, active)
        write_atomically(run.path / "README.md", card)
        return result

    record = fields.record(config, fields.ACTIVE)
    options = presets.run_options(config, fields.ACTIVE)
    return run_once(workdir, record, work, **options).result


def compare(
    config: Config,
    acquisitions: Sequence[str],
    num_seeds: int,
    coresets: Sequence[Coreset],
    data: Dataset,
    workdir: Path,
) -> str:
    """Runs several functions and seeds, and trains on coresets by the same recipe.

    Finished runs are not repeated, and interrupted ones resume. Several coresets of one
    size count as seeds: each trains one network. A single one trains a network per
    seed. Returns the comparison in Markdown, with a sentence per coreset.

    Args:
      config: model, training, budgets and the first seed.
      num_seeds: seeds of each function.
      data: the dataset, as ``load`` returns it.
      workdir: folder of the runs, the table and the figure.
    """
    if (workdir / ".lock").exists():
        raise UserError(
            f"{workdir} holds a single run; choose another folder for a comparison"
        )
    if coresets:
        config = dataclasses.replace(config, features=data.features)
    seeds = [config.seed + i for i in range(num_seeds)]
    points = []
    for clips in sorted({coreset.labels.shape[0] for coreset in coresets}):
        same_size = [one for one in coresets if one.labels.shape[0] == clips]
        if len(same_size) == 1:
            same_size *= num_seeds
        trained = []
        for i, coreset in enumerate(same_size):
            seed = config.seed + i
            source = source_lib.coreset_source(coreset.unpack())
            recipe = fields.replace(config, {"seed": seed})
            folder = workdir / f"coreset{clips}-seed{seed}"
            trained.append(train_source(recipe, data, source, folder))
        accuracies = tuple(run.scores.mean for run in trained)
        seconds = statistics.fmean(run.result["wall_seconds"] for run in trained)
        points.append(Point(clips, accuracies, seconds))
    results: dict[str, list[dict]] = {name: [] for name in acquisitions}
    # Seeds in the outer loop, so that an interrupted comparison has every function.
    for seed in seeds:
        for name in acquisitions:
            changes = {**_settings(name), "seed": seed}
            run_config = fields.replace(config, changes)
            result = learn(run_config, data, workdir / f"{name}-seed{seed}")
            results[name].append(result)
    curves = [learning_curves.curve(*item) for item in results.items()]
    first = results[acquisitions[0]][0]
    counts = [first["rounds"][0]["counted"], *first["budgets"].values()]
    rows = learning_curves.table(curves, points, counts, data.num_train)
    sentences = learning_curves.summary_sentences(curves, points)
    text = "\n\n".join([tables.markdown(rows), *sentences])
    _write(curves, points, text, config.model.name, data, workdir)
    mirror.publish(workdir)
    return text


def _write(
    curves: Sequence[Curve],
    points: Sequence[Point],
    text: str,
    model: str,
    data: Dataset,
    workdir: Path,
) -> None:
    """Writes ``comparison.json``, ``README.md`` and the figure."""
    workdir.mkdir(parents=True, exist_ok=True)
    title, figure = f"{data.title}, {model}", workdir / "learning_curves.png"
    learning_curves.draw(
        curves, points, data.num_train, title, figure, metric=data.metric
    )
    values = {
        "dataset": data.title,
        "model": model,
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
        f"{data.metric.capitalize()} on the test split in %, mean ± standard deviation "
        "over seeds; s: seconds of one run over all budgets, or of one training on the "
        "coreset.",
        text,
        f"![{data.metric} against labels](learning_curves.png)",
        f"Licence of the data: {data.licence}",
    ]
    write_atomically(workdir / "README.md", "\n\n".join(parts) + "\n")


def _show(result: dict[str, Any], path: Path) -> None:
    """Prints the rounds of one run, and the paths of its files."""
    metric = f"test {tables.metric_of([result])}"
    print(f"{'':14}labelled   of train   {metric}      s")
    for row in result["rounds"]:
        seconds = row["training_seconds"] + row["scoring_seconds"]
        print(
            f"{row.get('round', ''):14}{row['labelled']:8,}   "
            f"{100 * row['fraction']:6.2f} %   "
            f"{100 * score_of(row):{len(metric) - 2}.1f} % {seconds:6.0f}"
        )
    print()
    if warning := cards.constant_warning(result):
        print(warning, end="\n\n")
    files = {
        "labelled clips": path / "labelled.npy",
        "weights": path / "networks.npz",
        "picture": path / "figures" / "learning_curve.png",
        "card": path / "README.md",
    }
    table([(name, str(file)) for name, file in files.items()])
