"""A coreset as a folder that trains networks without audiodd_jax: NumPy or PyTorch.

coreset.npz    the original coreset
train.npz      images [k, f, t] and targets [k, c] that networks learn from
frontend.npz   filter bank, window, statistics
preprocess.py  turns recordings into spectrograms, with NumPy alone
test.npz       waveforms [b, samples] and labels [b], on request
train.py       for PyTorch: the ConvNet and its training, by recipe.json
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from audiodd_jax.config import ModelConfig, TrainingConfig, fields
from audiodd_jax.coreset.file import Coreset
from audiodd_jax.errors import UserError
from audiodd_jax.features import logmel
from audiodd_jax.runtime.files import save_npz, write_json
from audiodd_jax.training import losses

_SCRIPTS = Path(__file__).parent / "standalone"
# The values that train.py implements; recipes with other values are refused.
_SUPPORTED = {
    "model.name": "convnet",
    "training.optimizer": "adamw",
    "training.loss": "cross_entropy",
    "training.centre_outputs": False,
    "training.mixup": 0.0,
    "training.average": 0.0,
    "training.precision": "float32",
    "training.patience": 0,
    "training.augment.background": 0.0,
}
_RECIPE = (
    *("steps", "batch_size", "seeds"),
    *("learning_rate", "weight_decay", "warmup", "schedule"),
)
_MODEL = ("depth", "width", "norm", "readout", "head")


class Clips(NamedTuple):
    """Recordings to test networks on, with the coreset's sample rate and length."""

    waveforms: Float[np.ndarray, "b samples"]
    labels: Int[np.ndarray, "b *c"]


class Recipe(NamedTuple):
    """The network, and its training on the coreset."""

    model: ModelConfig
    training: TrainingConfig


def write(
    folder: Path, coreset: Coreset, recipe: Recipe, test: Clips | None, *, torch: bool
) -> None:
    """Writes the content of an existing folder; ``torch`` adds the script for PyTorch.

    Raises:
      UserError: the script does not support a setting of the recipe, or tags.
    """
    if torch:
        check(recipe, coreset.has_tags)
    coreset.save(folder / "coreset.npz")
    if learns_views(coreset, recipe.training):
        images, targets = coreset.views()
    else:
        images, labels = coreset.unpack()[:2]
        targets = losses.soft_targets(labels, recipe.training, coreset.has_tags)
    save_npz(
        folder / "train.npz",
        images=np.asarray(images, np.float32)[..., 0],
        targets=np.asarray(targets, np.float32),
        class_names=np.array(coreset.class_names),
    )
    features = coreset.features
    size = logmel.frontend(features)
    save_npz(
        folder / "frontend.npz",
        **coreset.normalization._asdict(),
        filters=logmel.mel_filter_bank(features),
        window=logmel.hann_window(size),
        sample_rate=np.array(size.sample_rate),
        samples=np.array(size.samples),
        hop=np.array(size.hop),
        silence=np.array(logmel.SILENCE),
        top_db=np.array(features.top_db),
        is_relative=np.array(features.clip_reference == "peak"),
        keeps_level=np.array(features.clip_reference == "level"),
        align=np.array(features.align),
    )
    shutil.copyfile(_SCRIPTS / "preprocess.py", folder / "preprocess.py")
    if test is not None:
        save_npz(folder / "test.npz", **test._asdict())
    if torch:
        values = _recipe_values(coreset, recipe)
        write_json(folder / "recipe.json", values)
        shutil.copyfile(_SCRIPTS / "train.py", folder / "train.py")
        if values["augment"]:
            shutil.copyfile(_SCRIPTS / "augment.py", folder / "augment.py")


def check(recipe: Recipe, has_tags: bool) -> None:
    """Refuses recipes and labels that ``train.py`` does not support."""
    if has_tags:
        raise UserError(
            "the script for PyTorch learns one class per clip; export a coreset of "
            "tags with --format=numpy, which has targets for binary cross-entropy"
        )
    for name, supported in _SUPPORTED.items():
        if (value := fields.get(recipe, name)) != supported:
            raise UserError(
                f"the script for PyTorch supports only {name}={supported}, not {value}"
            )


def learns_views(coreset: Coreset, training: TrainingConfig) -> bool:
    """Returns whether networks learn from views with the labels of a teacher."""
    return coreset.teacher_labels is not None and training.teacher_labels


def _recipe_values(coreset: Coreset, recipe: Recipe) -> dict[str, Any]:
    """Returns the settings that ``train.py`` reads."""
    model, training = recipe
    is_everywhere = model.dropout_place == "everywhere"
    augment = dataclasses.asdict(training.augment)
    strength = {k: v for k, v in augment.items() if not k.startswith("background")}
    # Views are augmented already.
    is_augmented = any(strength.values()) and not learns_views(coreset, training)
    return {
        "model": {
            **{name: getattr(model, name) for name in _MODEL},
            "dropout": model.dropout,
            "block_dropout": model.dropout * is_everywhere,
        },
        **{name: getattr(training, name) for name in _RECIPE},
        "augment": strength if is_augmented else None,
    }
