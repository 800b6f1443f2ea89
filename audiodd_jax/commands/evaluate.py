"""``audiodd evaluate``: scores a coreset and baselines of real clips.

Every protocol learns from the coreset and from each baseline by the same recipe; the
test split is read once, after training.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from audiodd_jax.command_line import CommandLine, names, table
from audiodd_jax.commands.common import resumable, start, target
from audiodd_jax.commands.train import train_source
from audiodd_jax.config import Config, extensions, fields, presets
from audiodd_jax.config.names import file_stem
from audiodd_jax.coreset import storage, subsets
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.coreset.dataset import coreset_config, load_data, load_encoded
from audiodd_jax.coreset.file import Coreset, load_coreset
from audiodd_jax.coreset.subsets import Subset
from audiodd_jax.data import datasets
from audiodd_jax.errors import UserError
from audiodd_jax.features import encoders
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.features.encoders import Embedder
from audiodd_jax.forecast import estimates
from audiodd_jax.forecast.workload import measure
from audiodd_jax.kernels.infinite_width import KERNELS
from audiodd_jax.kernels.ridge import Scoring
from audiodd_jax.report import evaluation_table
from audiodd_jax.report.evaluation_table import RELABELLED, Row
from audiodd_jax.runtime import mirror, progress
from audiodd_jax.runtime.environment import standard_numerics
from audiodd_jax.runtime.files import read_json
from audiodd_jax.training import evaluation, teacher
from audiodd_jax.training import scores as scores_lib
from audiodd_jax.training import source as source_lib
from audiodd_jax.training.scores import Evaluation
from audiodd_jax.training.source import Source

PROTOCOLS = ("krr", "knn", *KERNELS, *presets.MODEL_DEFAULTS)
# Protocols that learn from embeddings, if the coreset has an encoder.
ON_EMBEDDINGS = ("krr", "knn", "linear")
# Baselines with as many clips as the coreset, which its teacher can label too.
SAME_SIZE = ("random", "herding")


def run(line: CommandLine) -> None:
    """Evaluates as the command line says, and prints the scores."""
    flags = line.flags
    protocols, against = names(flags.protocol), names(flags.against)
    check_protocols(protocols)
    if bool(flags.workdir) == bool(flags.coreset):
        raise UserError("evaluate needs either --workdir or --coreset")
    run_folder = Path(flags.workdir or ".")
    mirror.fetch(run_folder)
    folds = _folds(run_folder) if flags.workdir else []
    folder = folds[0] if folds else run_folder
    coreset = load_coreset(flags.coreset or folder / "coreset.npz")
    base = coreset_config(coreset, folder if flags.workdir else None)
    if flags.dataset and flags.dataset != base.data.name:
        datasets.lookup(flags.dataset)
    config = line.configure(base)
    names_of_recipe = line.changed("model", "training")
    recipe = {name: fields.get(config, name) for name in names_of_recipe}
    chips = target(flags, "evaluate")
    start(flags, config.data)
    if chips:
        config = dataclasses.replace(config, features=coreset.features)
        work = measure(config, chips)
        table(estimates.evaluation(work, chips, coreset, protocols, recipe))
        return
    out = Path(flags.out) if flags.out else None
    # Kernel regression without baselines leaves no folder behind.
    if flags.workdir and not out and (protocols != ["krr"] or against):
        out = run_folder / "evaluation"
    wide = config.rfad.is_float64
    with resumable(out or run_folder), standard_numerics(wide):
        if folds:
            rows = compare_folds(folds, protocols, against, config, recipe, out)
        else:
            rows = compare(coreset, protocols, against, config, recipe, out)
    if out:
        with progress.waiting("drawing"):
            evaluation_table.write(rows, coreset.class_names, out)
        mirror.publish(out)
    _show(rows, coreset, "fold" if folds else "seed", out)


def _folds(run_folder: Path) -> list[Path]:
    """Returns the folds' run directories of a finished run of every fold, or none."""
    file = run_folder / "result.json"
    if (run_folder / "coreset.npz").exists() or not file.exists():
        return []
    rows = read_json(file).get("folds", [])
    return [run_folder / f"fold{row['fold']}" for row in rows]


def evaluate(
    coreset: Coreset, config: Config | None = None, cache_dir: Path | None = None
) -> Evaluation:
    """Scores a coreset by kernel regression on the test split of its dataset.

    Args:
      config: data and evaluation; None: as it was distilled. Feature settings and
        normalisation are always the coreset's.
      cache_dir: folder for downloads and features; None: ``config.data.cache_dir``.

    Raises:
      UserError: the dataset cannot be used, or has other classes.
    """
    config = fields.with_cache(config or coreset_config(coreset), cache_dir)
    with standard_numerics(config.rfad.is_float64):
        return compare(coreset, config=config)[0].scores


def compare(
    coreset: Coreset,
    protocols: Sequence[str] = ("krr",),
    against: Sequence[str] = (),
    config: Config | None = None,
    recipe: dict[str, Any] | None = None,
    out: Path | None = None,
) -> list[Row]:
    """Scores a coreset and baselines on the test split of its dataset.

    Args:
      protocols: ``krr``, ``nngp``, ``ntk``, ``convnet``, ``resnet18``, ``linear``, or
        ``package.module:factory`` of another network. With an encoder, ``krr``,
        ``linear`` (a linear probe) and ``knn`` learn from its embeddings.
      against: baselines: ``random``, ``herding`` (as many real clips of each class as
        the coreset has), ``hard`` (the coreset's images with hard labels), ``20%`` and
        so on, ``all``.
      config: data and evaluation; None: as it was distilled. Feature settings and
        normalisation are always the coreset's.
      recipe: settings that override each protocol's recipe.
      out: folder of trainings and exact kernels, which resume; None: memory only.

    Raises:
      UserError: the dataset cannot be used or has other classes, or a name is unknown.
    """
    sizes = np.bincount(coreset.classes, minlength=len(coreset.class_names)).tolist()
    per_class = sizes[0] if len(set(sizes)) == 1 else tuple(sizes)
    baselines = {
        name: None if name == "hard" else subsets.parse(name, per_class)
        for name in against
    }
    check_protocols(protocols)
    config = config or coreset_config(coreset)
    config = dataclasses.replace(config, features=coreset.features)
    fields.validate(config)
    needs_train, scored_by = any(baselines.values()), config.evaluation.metric
    encoder = encoders.load(config.encoder)
    if "knn" in protocols and not encoder:
        raise UserError("the protocol knn needs an encoder: add --encoder")
    # Each is loaded if a protocol needs it.
    clips = functools.cache(
        lambda: load_data(coreset, config.data, config.features, needs_train, scored_by)
    )
    encoded = None
    if encoder:
        of_encoder = (coreset, config.data, encoder, scored_by)
        encoded = functools.cache(functools.partial(load_encoded, *of_encoder))
    rows = []
    for name in protocols:
        settings, training_sets = config, {"coreset": None, **baselines}
        on_embeddings = encoded if name in ON_EMBEDDINGS else None
        if presets.is_network(name):
            own = presets.ON_EMBEDDINGS if on_embeddings else {}
            settings = presets.for_model(config, name, **{**own, **(recipe or {})})
            fields.validate(settings)
            has_teacher = coreset.teacher_labels is not None and not on_embeddings
            if has_teacher and settings.training.teacher_labels:
                same_size = [name for name in baselines if name in SAME_SIZE]
                training_sets |= {n + RELABELLED: baselines[n] for n in same_size}
        if on_embeddings:
            (data, embed), arrays = on_embeddings()
            protocol = Protocol(name, settings, data, coreset, arrays, embed)
        else:
            protocol = Protocol(name, settings, clips(), coreset, coreset.unpack())
        folder = out / file_stem(name) if out else None
        rows += [protocol.row(*item, folder) for item in training_sets.items()]
    return rows


def check_protocols(protocols: Sequence[str]) -> None:
    """Checks the protocols' names; raises UserError for an unknown one."""
    for protocol in protocols:
        if ":" in protocol:
            extensions.from_path(protocol)
        elif protocol not in PROTOCOLS:
            raise UserError(
                f"unknown protocol {protocol!r}; choose from {', '.join(PROTOCOLS)}, "
                "or name the factory of your own network as package.module:factory"
            )


def compare_folds(
    directories: Sequence[Path],
    protocols: Sequence[str],
    against: Sequence[str],
    config: Config,
    recipe: dict[str, Any],
    out: Path | None,
) -> list[Row]:
    """Scores each fold's coreset on its own test fold, with one accuracy per fold.

    Takes the folds' run directories and the arguments of ``compare``; ``data.fold`` is
    set to each fold in turn, which has a folder of its own in ``out``.
    """
    by_fold = []
    for directory in directories:
        coreset = load_coreset(directory / "coreset.npz")
        fold = coreset.metadata["split"]["fold"]
        one_fold = fields.replace(config, {"data.fold": fold})
        folder = out / f"fold{fold}" if out else None
        by_fold.append(compare(coreset, protocols, against, one_fold, recipe, folder))
    joined = []
    for rows in zip(*by_fold, strict=True):
        first = rows[0].scores
        scored = [row.scores for row in rows]
        means = tuple(statistics.fmean(one.accuracies) for one in scored)
        # None for tags.
        balanced = [statistics.fmean(one.balanced) for one in scored if one.balanced]
        scores = first._replace(
            accuracies=means, balanced=tuple(balanced), confusions=None, tags=None
        )
        seconds = sum(row.seconds for row in rows)
        joined.append(rows[0]._replace(scores=scores, seconds=seconds))
    return joined


class Protocol(NamedTuple):
    """A protocol with its settings, a coreset, and data preprocessed like it.

    Attributes:
      arrays: the unpacked coreset, or its embeddings.
      embed: the encoder, if ``data`` and ``arrays`` are embeddings; else None.
    """

    name: str
    config: Config
    data: Dataset
    coreset: Coreset
    arrays: CoresetArrays
    embed: Embedder | None = None

    def row(self, learns_from: str, subset: Subset | None, folder: Path | None) -> Row:
        """Scores one training set, drawn anew for each seed if it is random."""
        is_network = presets.is_network(self.name)
        group = self.config.training if is_network else self.config.evaluation
        draws = [list(range(group.seeds))]
        is_drawn = subset is not None and subset.is_drawn
        if is_drawn:
            draws = [[seed] for seed in draws[0]]
        elif self.embed and not is_network:  # nothing is random
            draws = [[0]]
        learn = self._train if is_network else self._regress
        scored, seconds = [], 0.0
        for seeds in draws:
            draw = self.config.seed + seeds[0]
            source, clips = self._training_set(learns_from, subset, draw)
            stem = f"{learns_from}-draw{draw}" if is_drawn else learns_from
            scores, took = learn(source, seeds, folder and folder / stem)
            scored.append(scores)
            seconds += took
        share = clips / self.data.num_train
        scores = scores_lib.joined(scored)._replace(metric=self.data.metric)
        return Row(self.name, learns_from, clips, share, scores, seconds)

    def _training_set(
        self, learns_from: str, subset: Subset | None, draw: int
    ) -> tuple[Source, int]:
        """Returns a training set, of real clips or the coreset, and its size."""
        config, data, coreset = self.config, self.data, self.coreset
        is_real_network = presets.is_network(self.name) and not self.embed
        if subset is None:
            if is_real_network and learns_from == "coreset":
                source = source_lib.network_source(coreset, config.training)
            else:
                has_tags = coreset.has_tags
                source = source_lib.coreset_source(self.arrays, learns_from, has_tags)
            return source, coreset.labels.shape[0]
        embedding = subsets.Embedding(
            config.network,
            config.evaluation.networks,
            data.train if self.embed else None,
        )
        rows = subsets.choose(subset, data, embedding, draw)
        source = source_lib.subset_source(subset, rows, data, draw)
        if learns_from.endswith(RELABELLED):
            # Views of the clips, labelled by the coreset's teacher.
            clips = cast(Clips, source.clips)
            images = np.asarray(clips.take(np.arange(len(clips.labels))))
            images = storage.read_back("image", images, coreset.storage)
            recipe = fields.with_cache(coreset_config(coreset), config.data.cache_dir)
            labelled = teacher.label(images, recipe, data)
            source = source_lib.views_source(labelled.views, learns_from)
        return source, len(rows)

    def _train(
        self, source: Source, seeds: Sequence[int], folder: Path | None
    ) -> tuple[Evaluation, float]:
        """Scores networks, with the seconds of their original training."""
        if self.embed:
            record = {**source.record, "encoder": self.embed.encoder.digest}
            source = source._replace(record=record)
        changes = {"training.seeds": len(seeds), "seed": self.config.seed + seeds[0]}
        config = fields.replace(self.config, changes)
        trained = train_source(config, self.data, source, folder)
        return trained.scores, trained.result["wall_seconds"]

    def _regress(
        self, source: Source, seeds: Sequence[int], folder: Path | None
    ) -> tuple[Evaluation, float]:
        """Scores kernel regression, with the seconds that it took."""
        began = time.perf_counter()
        config, test = self.config, self.data.test
        support = source.support(self.data.num_classes)
        scoring = Scoring.from_config(config, is_test=True)._replace(embed=self.embed)
        if self.name == "knn":
            scores = evaluation.nearest_neighbours(support, test)
        elif self.name in KERNELS:
            scores = evaluation.exact_regression(
                support, test, self.name, scoring, folder
            )
        else:
            shown = f"krr on {source.record['name']}"
            (scores,) = evaluation.kernel_regression(
                [support], test, scoring, seeds, shown=shown
            )
        return scores, time.perf_counter() - began


def _show(rows: Sequence[Row], coreset: Coreset, each: str, out: Path | None) -> None:
    """Prints the evaluation; ``each`` accuracy of a row is of a seed or a fold."""
    size = f"{coreset.labels.shape[0]} spectrograms of {coreset.metadata['dataset']}"
    lines = [("coreset", f"{size}, {len(coreset.class_names)} classes")]
    if len(rows) == 1:
        scores = rows[0].scores
        count, split = len(scores.accuracies), " on one split" * (each == "seed")
        lines += [
            (
                "protocol",
                f"{scores.protocol}, {count} {each}{'s' * (count > 1)}{split}",
            ),
            (f"test {scores.metric}", str(scores)),
            (f"all {each}s", ", ".join(f"{100 * a:.1f} %" for a in scores.values)),
            *evaluation_table.beside(scores).items(),
        ]
    if out:
        lines.append(("tables and pictures", str(out)))
    table(lines)
    if len(rows) > 1:
        summary = evaluation_table.summary(rows)
        print("", evaluation_table.render(rows), *summary, sep="\n")
