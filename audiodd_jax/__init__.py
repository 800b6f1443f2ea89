"""Dataset distillation of audio in pure JAX.

    import audiodd_jax

    config = audiodd_jax.for_dataset("tones", samples_per_class=1)
    run = audiodd_jax.distill(config, "runs/tones")
    run.coreset.images, run.result["test_accuracy"]

Axis letters, used in every shape of the package: ``n`` networks, ``s`` coreset samples,
``b`` batch (or clips), ``d`` features, ``c`` classes, ``f`` mel bins, ``t`` frames,
``p`` Monte Carlo passes, ``w`` channels (the width of a network), ``m`` outputs of a
dense head.
"""

import importlib
from typing import TYPE_CHECKING, Any

from audiodd_jax.version import __version__

if TYPE_CHECKING:
    from audiodd_jax.commands.active import active as active
    from audiodd_jax.commands.distill import Run as Run
    from audiodd_jax.commands.distill import distill as distill
    from audiodd_jax.commands.evaluate import evaluate as evaluate
    from audiodd_jax.commands.export import export as export
    from audiodd_jax.commands.label import label_rounds as label_rounds
    from audiodd_jax.commands.prepare import prepare as prepare
    from audiodd_jax.commands.score import score as score
    from audiodd_jax.commands.train import train as train
    from audiodd_jax.config import Config as Config
    from audiodd_jax.coreset.file import Coreset as Coreset
    from audiodd_jax.coreset.file import load_coreset as load_coreset
    from audiodd_jax.coreset.subsets import Subset as Subset
    from audiodd_jax.errors import UserError as UserError
    from audiodd_jax.flags import for_active as for_active
    from audiodd_jax.flags import for_dataset as for_dataset
    from audiodd_jax.flags import for_model as for_model
    from audiodd_jax.flags import for_session as for_session
    from audiodd_jax.networks.encoder import Encoder as Encoder
    from audiodd_jax.training.networks_file import load_networks as load_networks

# Resolved on first use, so that the command line answers before JAX is imported; type
# checkers read the imports above.
_EXPORTS = {
    "Config": "config",
    "Coreset": "coreset.file",
    "Encoder": "networks.encoder",
    "Run": "commands.distill",
    "Subset": "coreset.subsets",
    "UserError": "errors",
    "active": "commands.active",
    "distill": "commands.distill",
    "evaluate": "commands.evaluate",
    "export": "commands.export",
    "for_active": "flags",
    "for_dataset": "flags",
    "for_model": "flags",
    "for_session": "flags",
    "label_rounds": "commands.label",
    "load_coreset": "coreset.file",
    "load_networks": "training.networks_file",
    "prepare": "commands.prepare",
    "score": "commands.score",
    "train": "commands.train",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
