"""The job of ``audiodd evaluate``: a coreset compared with real clips.

Every protocol learns from the coreset and from each baseline by the same recipe; the
test split is read once, after training.
"""

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiodd_jax.commands import recorded_training, teacher
from audiodd_jax.commands.recorded_training import Source
from audiodd_jax.config import Config, extensions, fields, presets
from audiodd_jax.config.names import file_stem
from audiodd_jax.coreset import subsets
from audiodd_jax.coreset.dataset import coreset_config, load_data
from audiodd_jax.coreset.file import Coreset
from audiodd_jax.coreset.subsets import Subset
from audiodd_jax.errors import UserError
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.kernels.infinite_width import KERNELS
from audiodd_jax.kernels.ridge_scoring import Scoring
from audiodd_jax.report import evaluation_table, figures
from audiodd_jax.report.evaluation_table import RELABELLED, Row
from audiodd_jax.runtime import progress
from audiodd_jax.runtime.files import write_atomically, write_json
from audiodd_jax.training import evaluation
from audiodd_jax.training import scores as scores_lib

PROTOCOLS = ("krr", *KERNELS, *presets.MODEL_DEFAULTS)
# Baselines of a coreset's size, which can have labels by its teacher too.
SAME_SIZE = ("random", "herding")


def evaluate(
    coreset: Coreset,
    protocols: Sequence[str] = ("krr",),
    against: Sequence[str] = (),
    config: Config | None = None,
    changes: dict[str, Any] | None = None,
    out: Path | None = None,
    cache_dir: Path | None = None,
) -> list[Row]:
    """Scores a coreset and baselines on the test split of its dataset.

    Args:
      coreset: to score.
      protocols: ``krr``, ``nngp``, ``ntk``, ``convnet``, ``resnet18``, ``linear``, or
        ``package.module:factory`` of another network.
      against: baselines: ``random``, ``herding`` (the same number of real clips per
        class), ``hard`` (the coreset's images with hard labels), ``20%`` and so on,
        ``all``.
      config: data and evaluation; None: as it was distilled. Feature settings and
        normalisation are always the coreset's.
      changes: settings that override each protocol's recipe.
      out: folder of trainings and exact kernels, which resume; None: memory only.
      cache_dir: folder of downloads and features.

    Raises:
      UserError: the dataset cannot be used or has other classes, or a name is unknown.
    """
    per_class = math.ceil(coreset.labels.shape[0] / len(coreset.class_names))
    wanted = {
        name: None if name == "hard" else subsets.parse(name, per_class)
        for name in against
    }
    check_protocols(protocols)
    config = config or coreset_config(coreset)
    config = dataclasses.replace(config, features=coreset.features)
    fields.validate(config)
    data = load_data(coreset, config, any(wanted.values()), cache_dir)
    rows = []
    for protocol in protocols:
        recipe, names = config, ["coreset", *wanted]
        if presets.is_network(protocol):
            recipe = presets.for_model(config, protocol, **(changes or {}))
            fields.validate(recipe)
            if coreset.teacher_labels is not None and recipe.training.teacher_labels:
                names += [n + RELABELLED for n in wanted if n in SAME_SIZE]
        place = out / file_stem(protocol) if out else None
        for name in names:
            subset = wanted.get(name.removesuffix(RELABELLED))
            rows.append(
                _row(protocol, name, subset, coreset, data, recipe, place, cache_dir)
            )
    return rows


def check_protocols(protocols: Sequence[str]) -> None:
    """Checks the protocols' names.

    Raises:
      UserError: a protocol is unknown.
    """
    for protocol in protocols:
        if ":" in protocol:
            extensions.from_path(protocol)
        elif protocol not in PROTOCOLS:
            raise UserError(
                f"unknown protocol {protocol!r}; choose from {', '.join(PROTOCOLS)}, "
                "or name the factory of your own network as package.module:factory"
            )


def _row(
    protocol: str,
    name: str,
    subset: Subset | None,
    coreset: Coreset,
    data: Dataset,
    config: Config,
    place: Path | None,
    cache_dir: Path | None,
) -> Row:
    """Learns from one training set, once per seed, and scores it."""
    is_network = presets.is_network(protocol)
    seeds = (config.training if is_network else config.evaluation).seeds
    # Each seed learns from its own draw of clips.
    drawn = subset is not None and subset.is_drawn
    found, seconds = [], 0.0
    for i in range(seeds if drawn else 1):
        draw = config.seed + i
        if subset is not None:
            embedding = subsets.Embedding(config.network, config.evaluation.networks)
            rows = subsets.choose(subset, data, embedding, draw)
            source = recorded_training.subset_source(subset, rows, data, draw)
            if name.endswith(RELABELLED):
                source = _relabelled(source, name, coreset, data, cache_dir)
        elif is_network and name == "coreset":
            source = recorded_training.network_source(coreset, config.training)
        else:
            arrays, has_tags = coreset.unpack(), coreset.has_tags
            source = recorded_training.coreset_source(arrays, name, has_tags)
        folder = place / (f"{name}-draw{draw}" if drawn else name) if place else None
        if not is_network:
            began = time.perf_counter()
            support = recorded_training.support(source, data.num_classes)
            scoring = Scoring.for_test(config.network, config.evaluation, config.rfad)
            if protocol in KERNELS:
                scored = evaluation.exact_regression(
                    support, data.test, protocol, scoring, folder
                )
            else:
                networks = (i,) if drawn else range(seeds)
                with progress.waiting(f"{protocol} on {name}"):
                    (scored,) = evaluation.kernel_regression(
                        [support], data.test, scoring, networks
                    )
            found.append(scored)
            seconds += time.perf_counter() - began
            continue
        one = config
        if drawn:
            changes = {"training.seeds": 1, "seed": draw}
            one = fields.replace(config, changes)
        trained = recorded_training.train(one, data, source, folder)
        found.append(trained.scores)
        seconds += trained.result["wall_seconds"]
    # Stored spectrograms, whatever the coreset's factor and views.
    clips = coreset.labels.shape[0] if subset is None else len(rows)
    scores = scores_lib.joined(found)
    return Row(protocol, name, clips, clips / data.num_train, scores, seconds)


def _relabelled(
    source: Source, name: str, coreset: Coreset, data: Dataset, cache_dir: Path | None
) -> Source:
    """Real clips with views and labels as the coreset has them, by the same teacher."""
    images = source.clips.take(np.arange(len(source.clips.labels)))
    views = teacher.label(images, coreset_config(coreset), data, cache_dir).views
    return recorded_training.views_source(views, name)


def write(rows: Sequence[Row], class_names: tuple[str, ...], out: Path) -> None:
    """Writes ``evaluation.json``, ``README.md`` and a picture per row.

    Args:
      rows: of the comparison.
      class_names: the classes.
      out: folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    values = [
        {
            "learns_from": row.learns_from,
            "num_samples": row.clips,
            "fraction_of_train": row.fraction,
            "seconds": row.seconds,
            **row.scores.summary(class_names),
        }
        for row in rows
    ]
    write_json(out / "evaluation.json", values)
    pictures = []
    for row in rows:
        if not row.scores.is_detailed:
            continue
        name = f"{file_stem(row.protocol)}-{row.learns_from.rstrip('%')}.png"
        title = f"{row.protocol}, trained on {row.learns_from}"
        figures.by_class(row.scores, class_names, title, out / name)
        pictures.append(f"![{title}]({name})")
    parts = [
        "# Evaluation",
        f"{rows[0].scores.metric.capitalize()} on the test split, mean ± standard "
        "deviation over seeds.",
        evaluation_table.render(rows),
        *evaluation_table.summary(rows),
        # Means of folds have no confusion matrices.
        *([evaluation_table.render_classes(rows, class_names)] if pictures else []),
        *pictures,
    ]
    write_atomically(out / "README.md", "\n\n".join(parts) + "\n")
