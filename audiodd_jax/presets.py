"""What each dataset needs that differs from the defaults, and named presets.

Like ``config``, it imports neither JAX nor NumPy.
"""

from typing import Any

from audiodd_jax import config
from audiodd_jax.config import Config
from audiodd_jax.runtime.errors import UserError

# What a dataset needs that differs from the defaults, by dotted field name. Each
# was chosen on validation clips; BUILD_NOTES.md says how.
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
}
# Sounds of several seconds, in which more happens.
_SCENES = {
    **_CLIPS,
    "features.frames": 128,
    "features.n_mels": 64,
    "features.window_seconds": 0.046,
    "features.top_db": 80.0,
    "loop.steps": 200,
}
DATASET_DEFAULTS: dict[str, dict[str, Any]] = {
    "tones": {
        **_CLIPS,
        "features.sample_rate": 8_000,
        "loop.steps": 200,
    },
    "spoken_digit": {
        **_CLIPS,
        "features.sample_rate": 8_000,
        "features.window_seconds": 0.064,
        "loop.steps": 300,
    },
    "speech_commands": {**_CLIPS, "loop.steps": 300},
    "urbansound8k": {
        **_SCENES,
        "features.sample_rate": 22_050,
        "features.clip_seconds": 4.0,
    },
    "esc50": {
        **_SCENES,
        "features.sample_rate": 44_100,
        "features.clip_seconds": 5.0,
        "coreset.samples_per_class": 5,
    },
    "esc10": {
        **_SCENES,
        "features.sample_rate": 44_100,
        "features.clip_seconds": 5.0,
        "coreset.samples_per_class": 5,
    },
    "folder": {**_SCENES, "features.sample_rate": 0, "features.clip_seconds": 0.0},
}

# Named changes on top of a dataset's defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # To try the engine: a tenth of the work.
    "quick": {"loop.steps": 50, "loop.batch_size": 256, "network.width": 16},
    # The sizes of the published experiments, for an accelerator.
    "source": {
        "network.width": 256,
        "rfad.networks": 8,
        "loop.batch_size": 1280,
        "evaluation.width": 0,
        "features.n_mels": 64,
        "features.frames": 128,
    },
}


def for_dataset(name: str, preset: str = "default", **changes: Any) -> Config:
    """The configuration of a dataset: defaults, then its own, then a preset's.

    Args:
      name: of the dataset.
      preset: one of ``PRESETS``.
      **changes: fields by name, with ``__`` for the dot: ``coreset__init="noise"``.

    Raises:
      UserError: an unknown preset or field.
    """
    if preset not in PRESETS:
        raise UserError(
            f"there is no preset {preset!r}; there are {', '.join(PRESETS)}"
        )
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    settings = {**DATASET_DEFAULTS.get(name, {}), **PRESETS[preset], **dotted}
    return config.replace(Config(), {"data.name": name, **settings})
