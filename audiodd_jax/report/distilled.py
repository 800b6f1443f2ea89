"""A finished distillation: its file, result and pictures."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from audiodd_jax.config import Config, fields
from audiodd_jax.config.names import SELECTION
from audiodd_jax.coreset import sizes as coreset_sizes
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.coreset.dataset import coreset_config, metadata_of, with_teacher
from audiodd_jax.coreset.file import Coreset
from audiodd_jax.distillation.loop import Distilled
from audiodd_jax.features import normalization
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.features.encoders import Embedder
from audiodd_jax.report import figures, tables
from audiodd_jax.runtime.memory import peak_bytes
from audiodd_jax.training.scores import Evaluation
from audiodd_jax.training.teacher import Labelled


def coreset_of(
    arrays: CoresetArrays,
    classes: Int[np.ndarray, " s"],
    data: Dataset,
    config: Config,
    embed: Embedder | None = None,
) -> Coreset:
    """Returns a coreset with its metadata, as its file will give it back.

    ``classes`` are those that the images were made for, and ``embed`` is the encoder.
    """
    settings = fields.record(config, fields.DISTILLATION)
    metadata = metadata_of(settings, data)
    metadata["platt_scale"] = math.exp(float(arrays.log_scale))
    if embed:
        stats = embed.embeddings
        metadata["encoder"] = {
            "digest": embed.encoder.digest,
            **{n: np.asarray(v).tolist() for n, v in stats._asdict().items()},
        }
    images, labels = (np.asarray(a, np.float32) for a in arrays[:2])
    given = (images, labels, data.class_names, metadata)
    return Coreset(*given, made_for=classes).read_back()


def with_views(coreset: Coreset, labelled: Labelled) -> Coreset:
    """Returns the coreset with a teacher's labels of its views."""
    metadata = with_teacher(coreset.metadata)
    labels = np.asarray(labelled.views.labels)
    own = {"teacher_labels": labels, "stored_views": labelled.stored}
    return dataclasses.replace(coreset, metadata=metadata, **own)


def result(
    outcome: Distilled,
    scores: Sequence[Evaluation],
    coreset: Coreset,
    data: Dataset,
) -> dict[str, Any]:
    """Returns the contents of ``result.json``.

    ``scores`` are those of the coreset as saved, then of the initial one.
    """
    final, initial = scores
    config = coreset_config(coreset)
    size = coreset.labels.shape[0]
    sizes = np.bincount(coreset.classes, minlength=data.num_classes)
    mean = size / data.num_classes
    validation = [
        row["validation_accuracy"]
        for row in outcome.history
        if row["step"] == outcome.best_step and "validation_accuracy" in row
    ]
    labels = None  # all training labels were used
    if config.labels.is_part:
        chosen = "at random"
        if config.labels.run:
            chosen = f"by the run {config.labels.run} at {config.labels.budget}"
        elif config.labels.indices:
            chosen = f"by {config.labels.indices}"
        used = len(data.train.labels) - data.num_pseudo - data.num_replayed
        labels = {"used": used, "pseudo": data.num_pseudo, "chosen": chosen}
    return {
        **data.origin,
        "method": config.method,
        "samples_per_class": int(mean) if mean.is_integer() else round(mean, 2),
        "num_samples": size,
        "class_sizes": dict(zip(data.class_names, sizes.tolist(), strict=True)),
        "short_classes": coreset_sizes.shortage(
            config.coreset, config.method, data.class_clips, data.class_names
        ),
        "num_train": data.num_train,
        "fraction_of_train": size / data.num_train,
        "factor": coreset.packing.setting,
        "stored_values": coreset.num_values,
        "bytes": coreset.num_bytes,
        "image_bytes": coreset.file_bytes.images,
        "label_bytes": coreset.file_bytes.labels,
        "file_bytes": coreset.file_bytes.total,
        "storage": coreset.storage,
        "train_bytes": data.train_bytes,
        "views": config.coreset.views,
        "encoder": config.encoder.name,
        "distilled": config.encoder.distil,
        "labels": labels,
        "solved_labels": config.coreset.solve_labels,
        "seed": config.seed,
        "steps": outcome.steps,
        "best_step": outcome.best_step,
        "wall_seconds": outcome.history[-1]["seconds"],
        "peak_memory_bytes": peak_bytes(),
        "validation_accuracy": validation[-1] if validation else None,
        "protocol": final.protocol,
        **final.fields(),
        "start": config.coreset.init if outcome.steps else "real",
        **initial.fields("start_test"),
        "macro_f1": final.macro_f1,
        "start_macro_f1": initial.macro_f1,
    }


def draw(
    initial: CoresetArrays,
    final: CoresetArrays,
    classes: Int[np.ndarray, " k"],
    history: list[dict[str, Any]],
    data: Dataset,
    result: dict[str, Any],
    folder: Path,
) -> None:
    """Draws the metrics over steps, and a coreset of some classes before and after."""
    folder.mkdir(exist_ok=True)
    method = result["method"]
    title = f"{data.title}, {method}, {tables.per_class(result)} per class"
    if len(history) > 1:
        figures.curves(history, title, folder / "curves.png", data.metric)
    if data.is_embedded:
        return
    decibels = [
        np.asarray(normalization.invert(arrays.images, data.normalization))
        for arrays in (initial, final)
    ]
    is_selection = method in SELECTION
    names = ("random clips", "selected") if is_selection else ("start", "distilled")
    path, seconds = folder / "coreset.png", data.features.clip_seconds
    figures.coreset_grid(
        *decibels, classes, data.class_names, seconds, title, path, names
    )
