"""A coreset as a folder that trains networks without audiodd_jax: NumPy or PyTorch.

coreset.npz    the artefact, as it is
train.npz      images [k, f, t] and targets [k, c]: what networks learn from
frontend.npz   filter bank, window, statistics
preprocess.py  recordings to spectrograms, by NumPy alone
test.npz       waveforms [b, samples] and labels [b], if asked for
train.py       for PyTorch: the ConvNet and its training, by recipe.json
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from audiodd_jax.config import Config, fields
from audiodd_jax.coreset.file import Coreset
from audiodd_jax.coreset.views import Views
from audiodd_jax.errors import UserError
from audiodd_jax.features import logmel
from audiodd_jax.runtime.files import save_npz, write_json
from audiodd_jax.training import losses

_SCRIPTS = Path(__file__).parent / "standalone"
# What the recipes need and train.py does; other values are refused.
_ONLY = {
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
    """Recordings to test networks on.

    Attributes:
      waveforms: ``[b, samples]`` at the coreset's sample rate, of its length.
      labels: ``[b]`` classes, or ``[b, c]`` tags.
    """

    waveforms: Float[np.ndarray, "b samples"]
    labels: Int[np.ndarray, "b *c"]


def write(
    folder: Path, coreset: Coreset, config: Config, test: Clips | None, *, torch: bool
) -> None:
    """Writes the folder.

    Args:
      folder: exists.
      coreset: the coreset.
      config: of the network and its training.
      test: clips to test on, or None.
      torch: write the script for PyTorch too.

    Raises:
      UserError: the script has not a setting of the recipe.
    """
    if torch:
        check(config, coreset.has_tags)
    coreset.save(folder / "coreset.npz")
    images, targets = (np.asarray(a, np.float32) for a in _learnt(coreset, config))
    names = np.array(coreset.class_names)
    arrays = {"images": images[..., 0], "targets": targets, "class_names": names}
    save_npz(folder / "train.npz", **arrays)
    save_npz(folder / "frontend.npz", **_frontend(coreset))
    shutil.copyfile(_SCRIPTS / "preprocess.py", folder / "preprocess.py")
    if test is not None:
        save_npz(folder / "test.npz", **test._asdict())
    if torch:
        recipe = _recipe(coreset, config)
        write_json(folder / "recipe.json", recipe)
        shutil.copyfile(_SCRIPTS / "train.py", folder / "train.py")
        if recipe["augment"]:
            shutil.copyfile(_SCRIPTS / "augment.py", folder / "augment.py")


def check(config: Config, has_tags: bool = False) -> None:
    """Checks that ``train.py`` has the settings of a recipe.

    Raises:
      UserError: it has not, or clips have tags.
    """
    if has_tags:
        raise UserError(
            "the script for PyTorch learns one class per clip; export a coreset of "
            "tags by --format=numpy, whose targets are for binary cross-entropy"
        )
    for name, value in _ONLY.items():
        if (asked := fields.get(config, name)) != value:
            raise UserError(
                f"the script for PyTorch has {name}={value} only, not {asked}"
            )


def _has_views(coreset: Coreset, config: Config) -> bool:
    return coreset.teacher_labels is not None and config.training.teacher_labels


def _learnt(coreset: Coreset, config: Config) -> Views:
    """The spectrograms and probabilities that networks learn from."""
    if _has_views(coreset, config):
        return coreset.views()
    arrays = coreset.unpack()
    targets = losses.soft_targets(arrays.labels, config.training, coreset.has_tags)
    return Views(arrays.images, targets)


def _frontend(coreset: Coreset) -> dict[str, np.ndarray]:
    """Everything that ``preprocess.py`` needs, as arrays."""
    features = coreset.features
    size = logmel.frontend(features)
    return {
        **coreset.normalization._asdict(),
        "filters": logmel.mel_filter_bank(features),
        "window": logmel.hann_window(size),
        "sample_rate": np.array(size.sample_rate),
        "samples": np.array(size.samples),
        "hop": np.array(size.hop),
        "silence": np.array(logmel.SILENCE),
        "top_db": np.array(features.top_db),
        "is_relative": np.array(features.clip_reference == "peak"),
        "align": np.array(features.align),
    }


def _recipe(coreset: Coreset, config: Config) -> dict[str, Any]:
    """The settings that ``train.py`` reads."""
    model, training = config.model, config.training
    is_everywhere = model.dropout_place == "everywhere"
    augment = dataclasses.asdict(training.augment)
    strength = {k: v for k, v in augment.items() if not k.startswith("background")}
    # Views are augmented already.
    is_augmented = any(strength.values()) and not _has_views(coreset, config)
    return {
        "model": {
            **{name: getattr(model, name) for name in _MODEL},
            "dropout": model.dropout,
            "block_dropout": model.dropout * is_everywhere,
        },
        **{name: getattr(training, name) for name in _RECIPE},
        "augment": strength if is_augmented else None,
    }
