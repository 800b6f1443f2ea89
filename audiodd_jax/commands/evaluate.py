"""``audiodd evaluate``: scores a coreset and baselines of real clips.

Every protocol learns from the coreset and from each baseline by the same recipe; the
test split is read once, after training.
"""

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from absl import flags as absl_flags

from audiodd_jax.command_line import CommandLine, names
from audiodd_jax.commands import folds
from audiodd_jax.commands.common import resumable, start, target
from audiodd_jax.commands.printing import table
from audiodd_jax.commands.train import train_source
from audiodd_jax.config import Config, extensions, fields, presets
from audiodd_jax.config.names import file_stem
from audiodd_jax.coreset import subsets
from audiodd_jax.coreset.dataset import coreset_config, load_data
from audiodd_jax.coreset.file import Coreset, load_coreset
from audiodd_jax.coreset.subsets import Subset
from audiodd_jax.data import datasets
from audiodd_jax.errors import UserError
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.forecast import estimates
from audiodd_jax.forecast.workload import measure
from audiodd_jax.kernels.infinite_width import KERNELS
from audiodd_jax.kernels.ridge_scoring import Scoring
from audiodd_jax.report import evaluation_table
from audiodd_jax.report.evaluation_table import RELABELLED, Row
from audiodd_jax.runtime import progress
from audiodd_jax.training import evaluation, teacher
from audiodd_jax.training import scores as scores_lib
from audiodd_jax.training import source as source_lib
from audiodd_jax.training.scores import Evaluation
from audiodd_jax.training.source import Source

PROTOCOLS = ("krr", *KERNELS, *presets.MODEL_DEFAULTS)
# Baselines with as many clips as the coreset, which its teacher can label too.
SAME_SIZE = ("random", "herding")


class Subject(NamedTuple):
    """The coreset to evaluate.

    Attributes:
      coreset: the coreset; of a run over all folds, the first fold's.
      folder: its run directory; ``.`` for a coreset given as a file.
      folds: the folds' run directories, for a run over all folds.
    """

    coreset: Coreset
    folder: Path
    folds: list[Path]


def run(line: CommandLine) -> None:
    """Evaluates as the command line says, and prints the scores."""
    flags = line.flags
    protocols = names(flags.protocol)
    check_protocols(protocols)
    subject = _subject(flags)
    folder = subject.folds[0] if subject.folds else subject.folder
    base = coreset_config(subject.coreset, folder if flags.workdir else None)
    if flags.dataset and flags.dataset != base.data.name:
        datasets.lookup(flags.dataset)
    config = line.configure(base)
    names_of_recipe = line.changed("model", "training")
    recipe = {name: fields.get(config, name) for name in names_of_recipe}
    chips = target(flags, "evaluate")
    start(flags, config.data, float64=config.rfad.kernel_precision == "float64")
    if chips:
        config = dataclasses.replace(config, features=subject.coreset.features)
        work = measure(config, chips)
        coreset = subject.coreset
        table(estimates.evaluation(work, chips, coreset, protocols, recipe))
        return
    out = _out(flags, subject)
    against = names(flags.against)
    with resumable(out or subject.folder):
        if subject.folds:
            rows = compare_folds(subject.folds, protocols, against, config, recipe, out)
        else:
            rows = compare(subject.coreset, protocols, against, config, recipe, out)
    if out:
        evaluation_table.write(rows, subject.coreset.class_names, out)
    _show(rows, subject, out)


def _subject(flags: absl_flags.FlagValues) -> Subject:
    """Reads the coreset that the flags name.

    Raises:
      UserError: not exactly one coreset is named, or it cannot be read.
    """
    if bool(flags.workdir) == bool(flags.coreset):
        raise UserError("evaluate needs either --workdir or --coreset")
    folder = Path(flags.workdir or ".")
    directories = folds.directories(folder) if flags.workdir else []
    first = directories[0] if directories else folder
    coreset = load_coreset(flags.coreset or first / "coreset.npz")
    return Subject(coreset, folder, directories)


def _out(flags: absl_flags.FlagValues, subject: Subject) -> Path | None:
    """Returns the folder for trainings, tables and pictures, if any.

    Kernel regression without baselines leaves no folder behind.
    """
    if flags.out:
        return Path(flags.out)
    is_plain = names(flags.protocol) == ["krr"] and not flags.against
    return subject.folder / "evaluation" if flags.workdir and not is_plain else None


def evaluate(
    coreset: Coreset, config: Config | None = None, cache_dir: Path | None = None
) -> Evaluation:
    """Scores a coreset by kernel regression on the test split of its dataset.

    Args:
      coreset: the coreset to score.
      config: data and evaluation; None: as it was distilled. Feature settings and
        normalisation are always the coreset's.
      cache_dir: folder for downloads and features; None: ``config.data.cache_dir``.

    Raises:
      UserError: the dataset cannot be used, or has other classes.
    """
    config = fields.with_cache(config or coreset_config(coreset), cache_dir)
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
      coreset: the coreset to score.
      protocols: ``krr``, ``nngp``, ``ntk``, ``convnet``, ``resnet18``, ``linear``, or
        ``package.module:factory`` of another network.
      against: baselines: ``random``, ``herding`` (the same number of real clips per
        class), ``hard`` (the coreset's images with hard labels), ``20%`` and so on,
        ``all``.
      config: data and evaluation; None: as it was distilled. Feature settings and
        normalisation are always the coreset's.
      recipe: settings that override each protocol's recipe.
      out: folder of trainings and exact kernels, which resume; None: memory only.

    Raises:
      UserError: the dataset cannot be used or has other classes, or a name is unknown.
    """
    per_class = math.ceil(coreset.labels.shape[0] / len(coreset.class_names))
    baselines = {
        name: None if name == "hard" else subsets.parse(name, per_class)
        for name in against
    }
    check_protocols(protocols)
    config = config or coreset_config(coreset)
    config = dataclasses.replace(config, features=coreset.features)
    fields.validate(config)
    data = load_data(coreset, config.data, config.features, any(baselines.values()))
    rows = []
    for name in protocols:
        settings, training_sets = config, {"coreset": None, **baselines}
        if presets.is_network(name):
            settings = presets.for_model(config, name, **(recipe or {}))
            fields.validate(settings)
            if coreset.teacher_labels is not None and settings.training.teacher_labels:
                same_size = [name for name in baselines if name in SAME_SIZE]
                training_sets |= {n + RELABELLED: baselines[n] for n in same_size}
        protocol = Protocol(name, settings, data)
        folder = out / file_stem(name) if out else None
        for training_set in training_sets.items():
            rows.append(_row(protocol, *training_set, coreset, folder))
    return rows


def check_protocols(protocols: Sequence[str]) -> None:
    """Checks the protocols' names.

    Raises:
      UserError: an unknown protocol.
    """
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
    recipe: dict[str, Any] | None = None,
    out: Path | None = None,
) -> list[Row]:
    """Scores each fold's coreset on its own test fold, with one accuracy per fold.

    Args:
      directories: the folds' run directories.
      protocols: as for ``compare``.
      against: as for ``compare``.
      config: as for ``compare``; ``data.fold`` is set to each fold in turn.
      recipe: as for ``compare``.
      out: as for ``compare``; each fold has a folder of its own there.
    """
    by_fold = []
    for directory in directories:
        coreset = load_coreset(directory / "coreset.npz")
        fold = coreset.metadata["split"]["fold"]
        one_fold = fields.replace(config, {"data.fold": fold})
        folder = out / f"fold{fold}" if out else None
        by_fold.append(compare(coreset, protocols, against, one_fold, recipe, folder))
    return [_over_folds(rows) for rows in zip(*by_fold, strict=True)]


def _over_folds(rows: Sequence[Row]) -> Row:
    """Returns a row whose accuracies are the means of the folds."""
    means = tuple(row.scores.mean for row in rows)
    first = rows[0].scores
    scores = Evaluation(first.protocol, means, metric=first.metric)
    return rows[0]._replace(scores=scores, seconds=sum(row.seconds for row in rows))


class Scored(NamedTuple):
    """Scores of one training set.

    Attributes:
      scores: scores on the test split.
      seconds: duration of the original training, or of this kernel regression.
    """

    scores: Evaluation
    seconds: float


class Protocol(NamedTuple):
    """A protocol with its settings and the data that it tests on.

    Attributes:
      name: ``krr``, an exact kernel, or a network.
      config: settings of the protocol.
      data: the dataset, preprocessed like the coreset.
    """

    name: str
    config: Config
    data: Dataset

    @property
    def is_network(self) -> bool:
        """Returns whether the protocol trains networks."""
        return presets.is_network(self.name)

    @property
    def seeds(self) -> range:
        """Returns the seeds, counted from 0."""
        group = self.config.training if self.is_network else self.config.evaluation
        return range(group.seeds)

    def score(
        self, source: Source, seeds: Sequence[int], folder: Path | None
    ) -> Scored:
        """Learns from a training set and scores it; a given folder allows resuming."""
        if self.is_network:
            changes = {
                "training.seeds": len(seeds),
                "seed": self.config.seed + seeds[0],
            }
            config = fields.replace(self.config, changes)
            trained = train_source(config, self.data, source, folder)
            return Scored(trained.scores, trained.result["wall_seconds"])
        began = time.perf_counter()
        scores = self._regress(source, seeds, folder)
        return Scored(scores, time.perf_counter() - began)

    def _regress(
        self, source: Source, seeds: Sequence[int], folder: Path | None
    ) -> Evaluation:
        """Scores a training set by kernel regression."""
        config, test = self.config, self.data.test
        support = source.support(self.data.num_classes)
        scoring = Scoring.for_test(config.network, config.evaluation, config.rfad)
        if self.name in KERNELS:
            return evaluation.exact_regression(
                support, test, self.name, scoring, folder
            )
        with progress.waiting(f"krr on {source.record['name']}"):
            return evaluation.kernel_regression([support], test, scoring, seeds)[0]


def _row(
    protocol: Protocol,
    name: str,
    subset: Subset | None,
    coreset: Coreset,
    folder: Path | None,
) -> Row:
    """Scores one training set, drawn anew for each seed if it is random."""
    config, data = protocol.config, protocol.data
    is_drawn = subset is not None and subset.is_drawn
    scored, clips = [], coreset.labels.shape[0]
    for seeds in [[i] for i in protocol.seeds] if is_drawn else [list(protocol.seeds)]:
        draw = config.seed + seeds[0]
        if subset is not None:
            embedding = subsets.Embedding(config.network, config.evaluation.networks)
            rows = subsets.choose(subset, data, embedding, draw)
            source = source_lib.subset_source(subset, rows, data, draw)
            clips = len(rows)
            if name.endswith(RELABELLED):
                source = _relabelled(source, name, coreset, data, config.data.cache_dir)
        elif protocol.is_network and name == "coreset":
            source = source_lib.network_source(coreset, config.training)
        else:
            source = source_lib.coreset_source(coreset.unpack(), name, coreset.has_tags)
        draw_name = f"{name}-draw{draw}" if is_drawn else name
        scored.append(protocol.score(source, seeds, folder and folder / draw_name))
    scores = scores_lib.joined([one.scores for one in scored])
    seconds = sum(one.seconds for one in scored)
    return Row(protocol.name, name, clips, clips / data.num_train, scores, seconds)


def _relabelled(
    source: Source, name: str, coreset: Coreset, data: Dataset, cache_dir: str
) -> Source:
    """Returns views of real clips, labelled by the coreset's teacher."""
    clips = cast(Clips, source.clips)
    images = clips.take(np.arange(len(clips.labels)))
    config = fields.with_cache(coreset_config(coreset), cache_dir)
    return source_lib.views_source(teacher.label(images, config, data).views, name)


def _show(rows: Sequence[Row], subject: Subject, out: Path | None) -> None:
    """Prints the evaluation."""
    coreset = subject.coreset
    size = f"{coreset.labels.shape[0]} spectrograms of {coreset.metadata['dataset']}"
    lines = [("coreset", f"{size}, {len(coreset.class_names)} classes")]
    if len(rows) == 1:
        scores = rows[0].scores
        each, count = "folds" if subject.folds else "seeds", len(scores.accuracies)
        number = f"{count} {each if count > 1 else each[:-1]}"
        lines += [
            ("protocol", f"{scores.protocol}, {number}"),
            (f"test {scores.metric}", str(scores)),
            (f"all {each}", ", ".join(f"{100 * a:.1f} %" for a in scores.accuracies)),
        ]
    if out:
        lines.append(("tables and pictures", str(out)))
    table(lines)
    if len(rows) > 1:
        summary = evaluation_table.summary(rows)
        print("", evaluation_table.render(rows), *summary, sep="\n")
