"""The verdict on a coreset: what learns from it, beside what learns from real clips.

Every protocol trains on the coreset and on each thing that it is compared with by one
recipe, and the test split is read once, by what was trained in the end.
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
    """A line of the table.

    Attributes:
      protocol: ``krr``, an exact kernel, or a network's name.
      learns_from: ``coreset``, ``hard`` (its images, hard labels), or a subset.
      clips: spectrograms or clips that were learnt from.
      fraction: of the training split.
      scores: on the test split.
      seconds: of training, when it was done; of kernel regression, now.
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
    """Scores a coreset, and what it is compared with, on its dataset's test split.

    Args:
      coreset: the artefact.
      protocols: ``krr``, ``nngp``, ``ntk``, ``convnet``, ``resnet18``, ``linear``.
      against: ``random``, ``herding`` (real clips, as many a class), ``hard`` (the
        coreset's images with hard labels), ``20%`` and so on, ``all``.
      config: where the data lies and how to evaluate; None: as it was distilled. The
        feature settings and normalisation are always the coreset's.
      changes: settings of networks and training, over each protocol's recipe.
      out: where trainings and exact kernels are recorded and resumed; None keeps all
        in memory.
      cache_dir: where downloads and features are kept.

    Raises:
      UserError: the dataset cannot be used or has other classes, or an unknown name.
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
    """Refuses a protocol that there is not.

    Raises:
      UserError: naming it.
    """
    for protocol in protocols:
        if protocol not in PROTOCOLS:
            raise UserError(
                f"there is no protocol {protocol!r}; there are {', '.join(PROTOCOLS)}"
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
    """Trains on one thing, once a seed, and scores it."""
    is_network = protocol in presets.MODEL_DEFAULTS
    seeds = (config.training if is_network else config.evaluation).seeds
    # Each seed learns from its own draw of clips; what is not drawn has one.
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
    # Of a coreset, what is stored, however many spectrograms that holds.
    learnt = coreset.labels if subset is None else source.clips.labels
    clips = learnt.shape[0]
    scores = evaluation.joined(found)
    return Row(protocol, name, clips, clips / data.num_train, scores, seconds)


def write(rows: Sequence[Row], class_names: tuple[str, ...], out: Path) -> None:
    """Writes ``verdict.json``, ``README.md`` and the confusion matrices.

    Args:
      rows: the comparison.
      class_names: the classes.
      out: the folder.
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
    write_json(out / "verdict.json", values)
    pictures = []
    for row in rows:
        if row.scores.confusions is None:
            continue
        name = f"{row.protocol}-{row.learns_from.rstrip('%')}.png"
        title = f"{row.protocol}, learnt from {row.learns_from}"
        figures.confusion(row.scores.confusions.sum(0), class_names, title, out / name)
        pictures.append(f"![{title}]({name})")
    parts = [
        "# Verdict",
        "Accuracy on the test split, mean ± standard deviation over seeds.",
        evaluation_table.render(rows),
        # Means of folds have no confusion matrices to tell classes by.
        *([evaluation_table.render_classes(rows, class_names)] if pictures else []),
        *pictures,
    ]
    write_atomically(out / "README.md", "\n\n".join(parts) + "\n")
