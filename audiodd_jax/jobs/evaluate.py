"""The job of ``audiodd evaluate``: a coreset compared with real clips.

Every protocol learns from the coreset and from each baseline by the same recipe; the
test split is read once, after training.
"""

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from audiodd_jax.artifacts.coreset_file import Coreset
from audiodd_jax.config import Config, fields, presets
from audiodd_jax.features.dataset import Prepared
from audiodd_jax.jobs import recorded_training
from audiodd_jax.jobs.coreset_data import coreset_config, load_data
from audiodd_jax.kernels.infinite_width import KERNELS
from audiodd_jax.report import evaluation_table, figures
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.runtime.files import write_atomically, write_json
from audiodd_jax.selection import subsets
from audiodd_jax.selection.subsets import Subset
from audiodd_jax.training import evaluation
from audiodd_jax.training.evaluation import Evaluation

PROTOCOLS = ("krr", *KERNELS, *presets.MODEL_DEFAULTS)


class Row(NamedTuple):
    """A row of the comparison.

    Attributes:
      protocol: ``krr``, an exact kernel, or a network's name.
      learns_from: ``coreset``, ``hard`` (its images with hard labels), or a subset.
      clips: number of spectrograms or clips in the training set.
      fraction: of the training split.
      scores: on the test split.
      seconds: of the original training, or of this kernel regression.
    """

    protocol: str
    learns_from: str
    clips: int
    fraction: float
    scores: Evaluation
    seconds: float


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
      protocols: ``krr``, ``nngp``, ``ntk``, ``convnet``, ``resnet18``, ``linear``.
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
        recipe = config
        if protocol in presets.MODEL_DEFAULTS:
            recipe = presets.for_model(config, protocol, **(changes or {}))
            fields.validate(recipe)
        place = out / protocol if out else None
        for name in ("coreset", *wanted):
            rows.append(
                _row(protocol, name, wanted.get(name), coreset, data, recipe, place)
            )
    return rows


def check_protocols(protocols: Sequence[str]) -> None:
    """Checks the protocols' names.

    Raises:
      UserError: a protocol is unknown.
    """
    for protocol in protocols:
        if protocol not in PROTOCOLS:
            raise UserError(
                f"unknown protocol {protocol!r}; choose from {', '.join(PROTOCOLS)}"
            )


def _row(
    protocol: str,
    name: str,
    subset: Subset | None,
    coreset: Coreset,
    data: Prepared,
    config: Config,
    place: Path | None,
) -> Row:
    """Learns from one training set, once per seed, and scores it."""
    is_network = protocol in presets.MODEL_DEFAULTS
    seeds = (config.training if is_network else config.evaluation).seeds
    # Each seed learns from its own draw of clips.
    drawn = subset is not None and subset.is_drawn
    found, seconds = [], 0.0
    for i in range(seeds if drawn else 1):
        draw = config.seed + i
        if subset is None:
            source = recorded_training.coreset_source(coreset.unfolded(), name)
        else:
            rows = subsets.choose(subset, data, config, draw)
            source = recorded_training.subset_source(subset, rows, data, draw)
        folder = place / (f"{name}-draw{draw}" if drawn else name) if place else None
        if not is_network:
            began = time.perf_counter()
            support = recorded_training.support(source, data.num_classes)
            if protocol in KERNELS:
                scored = evaluation.exact_regression(
                    support, data.test, protocol, config, folder
                )
            else:
                networks = (i,) if drawn else range(seeds)
                (scored,) = evaluation.kernel_regression(
                    [support], data.test, config, networks
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
    # Stored spectrograms, whatever the coreset's factor.
    learnt = coreset.labels if subset is None else source.clips.labels
    clips = learnt.shape[0]
    scores = evaluation.joined(found)
    return Row(protocol, name, clips, clips / data.num_train, scores, seconds)


def write(rows: Sequence[Row], class_names: tuple[str, ...], out: Path) -> None:
    """Writes ``evaluation.json``, ``README.md`` and the confusion matrices.

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
        if row.scores.confusions is None:
            continue
        name = f"{row.protocol}-{row.learns_from.rstrip('%')}.png"
        title = f"{row.protocol}, trained on {row.learns_from}"
        figures.confusion(row.scores.confusions.sum(0), class_names, title, out / name)
        pictures.append(f"![{title}]({name})")
    parts = [
        "# Evaluation",
        "Accuracy on the test split, mean ± standard deviation over seeds.",
        evaluation_table.render(rows),
        # Means of folds have no confusion matrices.
        *([evaluation_table.render_classes(rows, class_names)] if pictures else []),
        *pictures,
    ]
    write_atomically(out / "README.md", "\n\n".join(parts) + "\n")
