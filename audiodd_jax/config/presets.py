"""Defaults by dataset, method and network, and named presets."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from audiodd_jax.config import Config, extensions, fields
from audiodd_jax.config.settings import strong
from audiodd_jax.errors import UserError

# Settings of a dataset that differ from the defaults, by dotted field name, chosen on
# validation clips (BUILD_NOTES.md).
_CLIPS = {
    "features.align": "center",
    "features.top_db": 60.0,
    "network.width": 32,
    "network.readout": "time_mean",
    "rfad.networks": 2,
    "optimizer.learning_rate": 3e-2,
    "optimizer.schedule": "cosine",
    "loop.batch_size": 512,
    "evaluation.width": 64,
    "frepo.width": 32,
    "matching.width": 32,
    "matching.real_per_class": 32,
    "matching.inner_loop": 5,
    "matching.learning_rate": 0.3,
}
# Acoustic scenes of several seconds.
_SCENES = {
    **_CLIPS,
    "features.frames": 128,
    "features.n_mels": 64,
    "features.window_seconds": 0.046,
    "features.top_db": 80.0,
    "loop.steps": 200,
    # Hundreds of clips, not thousands, and four times the pixels.
    "teacher.steps": 400,
}
_ESC = {
    **_SCENES,
    # That of the recordings, 44.1 kHz as published: a higher one leaves mel bins empty.
    "features.sample_rate": 0,
    "features.clip_seconds": 5.0,
    "coreset.samples_per_class": 5,
}
_TONES = {**_CLIPS, "features.sample_rate": 8_000, "loop.steps": 200}
DATASET_DEFAULTS: dict[str, dict[str, Any]] = {
    "tones": _TONES,
    "tones_tagged": _TONES,
    "spoken_digit": {
        **_CLIPS,
        "features.sample_rate": 8_000,
        "features.window_seconds": 0.064,
        "loop.steps": 300,
    },
    "speech_commands": {**_CLIPS, "loop.steps": 300},
    "arabic_speech_commands": {**_CLIPS, "loop.steps": 300},
    "urbansound8k": {
        **_SCENES,
        "features.sample_rate": 22_050,
        "features.clip_seconds": 4.0,
        # Many clips share a recording, and images soon memorise recordings: it is the
        # labels that generalise.
        "coreset.solve_labels": True,
        "loop.draw": "recordings",
        "loop.steps": 100,
        "optimizer.learning_rate": 3e-4,
    },
    "esc50": _ESC,
    "esc10": _ESC,
    "folder": {**_SCENES, "features.sample_rate": 0, "features.clip_seconds": 0.0},
}

# Settings of a method that differ from a dataset's defaults. Matching learns images for
# networks trained on hard labels, FRePo for networks of all ages. Kernel regression
# with random networks validates neither, so they keep the last coreset.
_FIXED_LABELS = {"coreset.learn_labels": False, "coreset.solve_labels": False}
_MATCHING = {**_FIXED_LABELS, "loop.keep": "last"}
METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    # Exact kernels take (f t)^2 values per pair of spectrograms: small spectrograms.
    "kip": {
        "features.n_mels": 16,
        "features.frames": 16,
        "loop.batch_size": 32,
        "loop.steps": 50,
    },
    "frepo": {"loop.keep": "last"},
    "dc": _MATCHING,
    "dsa": _MATCHING,
    "dm": {**_MATCHING, "matching.learning_rate": 0.1},
    "random": _FIXED_LABELS,
    "herding": _FIXED_LABELS,
    "k_center": _FIXED_LABELS,
    "medoids": _FIXED_LABELS,
    "lgm": _FIXED_LABELS,
}

# Settings with an encoder that differ from the defaults of datasets and methods, chosen
# on validation clips: with one herded clip per class of Arabic Speech Commands, kernel
# regression reaches 63.3 % with the regulariser 1e-3, 71.8 % with 5e-2 and 76.1 % with
# 0.5, and with one random clip 54.3 %.
ENCODER_DEFAULTS: dict[str, Any] = {
    "coreset.init": "herding",
    "coreset.solve_labels": False,
    "rfad.loss": "platt",
    "rfad.regularizer": 0.5,
    "loop.steps": 100,
    "loop.draw": "clips",
    "optimizer.learning_rate": 3e-2,
}

# Named changes on top of a dataset's and a method's defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # Coresets for training networks: the images are learnt with a kernel that is
    # sensitive to time, and a teacher labels random views of them. RFAD learns from
    # such views, too.
    "transfer": {
        **_FIXED_LABELS,
        "network.readout": "flatten",
        "teacher.networks": 2,
        "coreset.views": 20,
    },
    # For a first try: a tenth of the work.
    "quick": {
        "loop.steps": 50,
        "loop.batch_size": 256,
        "network.width": 16,
        "frepo.width": 16,
        "matching.width": 16,
        "matching.real_per_class": 16,
    },
    # The sizes of the published experiments, for an accelerator.
    "source": {
        "network.width": 256,
        "rfad.networks": 8,
        "loop.batch_size": 1280,
        "evaluation.width": 0,
        "frepo.width": 128,
        "matching.width": 128,
        "matching.real_per_class": 256,
        "matching.inner_loop": 0,
        "matching.learning_rate": 0.1,
        "features.n_mels": 64,
        "features.frames": 128,
    },
}

# Changes of a preset for one method.
PRESETS_OF_METHODS: dict[tuple[str, str], dict[str, Any]] = {
    ("transfer", "rfad"): {
        "rfad.views": 4,
        "optimizer.learning_rate": 3e-2,
        "loop.steps": 150,
        # Kernel regression on the coreset's own labels says nothing of its views.
        "loop.keep": "last",
    },
}

# The recipe of each network, chosen on validation clips for training on coresets
# (BUILD_NOTES.md), and used for all training sets.
_STRONG = {
    f"training.augment.{name}": value
    for name, value in dataclasses.asdict(strong()).items()
}
MODEL_DEFAULTS: dict[str, dict[str, Any]] = {
    "convnet": {
        "model.width": 32,
        "model.readout": "flatten",
        "training.steps": 500,
        **_STRONG,
    },
    # Learnt labels cost this deeper network four points of accuracy.
    "resnet18": {
        "model.readout": "mean",
        "training.steps": 200,
        "training.labels": "hard",
        "training.augment.time_shift": 0.1,
    },
    "linear": {"training.steps": 300, "training.augment.time_shift": 0.1},
}

# Changes to a network's recipe for a head on embeddings, which are not augmented.
ON_EMBEDDINGS: dict[str, Any] = {
    **{name: 0.0 for name in _STRONG if not name.endswith("snr_db")},
    "training.learning_rate": 1e-2,
}

# Changes to a network's recipe for active learning: one network per round, with dropout
# for Monte Carlo passes. With batch normalisation, dropout in every block costs the
# ConvNet five points on validation clips; before the last layer it costs nothing.
ACTIVE_DEFAULTS: dict[str, Any] = {
    "model.dropout": 0.2,
    "model.dropout_place": "head",
    "training.seeds": 1,
}


# Replaces the number per class where the size in all is given.
IN_ALL: dict[str, Any] = {"coreset.samples_per_class": 0}

# Settings that do not affect a run's numbers: it may be resumed with other values.
MAY_CHANGE = (
    "data.data_dir",
    "data.processes",
    "data.storage",
    "network.chunk",
    "evaluation.seeds",
    "evaluation.width",
    "evaluation.batch_size",
)


def for_dataset(name: str, preset: str = "default", **changes: Any) -> Config:
    """Returns a dataset's defaults, with those of a method and a preset on top.

    Args:
      preset: one of ``PRESETS``.
      **changes: settings by name, with ``__`` for the dot (``coreset__init="noise"``),
        and plain flags of ``audiodd distill`` (``samples_per_class=1``). ``method``
        and ``encoder`` also apply their defaults, and ``samples`` (in all) takes the
        place of a dataset's ``samples_per_class``.

    Raises:
      UserError: an unknown preset, setting or flag.
    """
    if preset not in PRESETS:
        raise UserError(f"unknown preset {preset!r}; choose from {', '.join(PRESETS)}")
    method = changes.get("method", Config().method)
    key = "folder" if name.startswith("tfds:") else name
    given = _dotted(changes)
    values = {
        "data.name": name,
        **DATASET_DEFAULTS.get(key, {}),
        **METHOD_DEFAULTS.get(method, {}),
        **(ENCODER_DEFAULTS if given.get("encoder.name") else {}),
        **PRESETS[preset],
        **PRESETS_OF_METHODS.get((preset, method), {}),
        **(IN_ALL if given.get("coreset.samples") else {}),
    }
    return fields.replace(Config(), {**values, **given})


def for_model(config: Config, model: str, **changes: Any) -> Config:
    """Returns a configuration with the recipe of a network.

    Args:
      model: one of ``MODEL_DEFAULTS``, or ``package.module:factory``, whose recipe is
        the ConvNet's.
      **changes: settings (``training__steps=100``) and plain flags of ``audiodd train``
        (``steps=100``), as in ``for_dataset``.

    Raises:
      UserError: an unknown model, setting or flag.
    """
    if not is_network(model):
        raise UserError(
            f"unknown model {model!r}; choose from {', '.join(MODEL_DEFAULTS)}, or "
            "name the factory of your own as package.module:factory"
        )
    recipe = MODEL_DEFAULTS.get(model, MODEL_DEFAULTS["convnet"])
    return fields.replace(config, {"model.name": model, **recipe, **_dotted(changes)})


def for_active(config: Config, model: str, **changes: Any) -> Config:
    """Returns a configuration for active learning; as ``for_model`` otherwise."""
    config, given = for_model(config, model), _dotted(changes)
    has_encoder = given.get("encoder.name", config.encoder.name)
    own = ON_EMBEDDINGS if has_encoder else {}
    return fields.replace(config, {**ACTIVE_DEFAULTS, **own, **given})


def for_session(sounds: str, model: str = "convnet", **changes: Any) -> Config:
    """Returns a configuration for labelling a folder of sounds, as ``for_active``.

    Recordings that cannot be decoded are left out.
    """
    base = {"session__sounds": sounds, "data__skip_bad_files": True}
    return for_active(for_dataset("folder"), model, **{**base, **changes})


def _dotted(changes: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("__", "."): value for name, value in changes.items()}


def is_network(name: str) -> bool:
    """Returns whether a name is a network of this package or a factory's path."""
    return name in MODEL_DEFAULTS or ":" in name


def run_options(
    config: Config, groups: Iterable[str], *, is_part: bool = False
) -> dict[str, Any]:
    """Returns how a run directory compares groups of settings with an earlier run's.

    Settings that are missing from an older run take the dataset's defaults. A run that
    ``is_part`` of another has event files, and no other tracker.
    """
    defaults = for_dataset(config.data.name, method=config.method)
    return {
        "defaults": fields.record(defaults, groups),
        "may_change": MAY_CHANGE,
        "tracked_by": extensions.trackers("tensorboard" if is_part else config.tracker),
    }
