"""Settings by their dotted names: listing, changing and checking them.

Like ``config``, it imports neither JAX nor NumPy.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from audiodd_jax.config import Config
from audiodd_jax.config.names import ACQUISITIONS, METHODS, REGRESSION
from audiodd_jax.runtime.errors import UserError

_CHOICES = {
    "method": METHODS,
    "data.storage": ("auto", "device", "host"),
    "features.mel_scale": ("slaney", "htk"),
    "features.clip_reference": ("peak", "absolute"),
    "features.align": ("start", "center", "repeat"),
    "features.normalization": ("global", "per_bin"),
    "network.readout": ("flatten", "dense", "time_mean"),
    "coreset.init": ("real", "noise"),
    "network.precision": ("float32", "tf32", "bfloat16"),
    "rfad.loss": ("mse", "platt"),
    "rfad.kernel_precision": ("float32", "float64"),
    "kip.kernel": ("nngp", "ntk"),
    "matching.norm": ("instance", "group", "none"),
    "matching.optimizer": ("sgd", "adam"),
    "siamese.mode": ("one", "all"),
    "loop.keep": ("best", "last"),
    "optimizer.schedule": ("constant", "cosine"),
    "model.name": ("convnet", "resnet18", "linear"),
    "model.norm": ("batch", "instance", "group", "none"),
    "model.readout": ("flatten", "time_mean", "mean"),
    "model.head": ("zero", "random"),
    "model.stem": ("imagenet", "small"),
    "model.dropout_place": ("everywhere", "head"),
    "training.optimizer": ("adamw", "sgd"),
    "training.schedule": ("cosine", "constant"),
    "training.loss": ("cross_entropy", "mse"),
    "training.labels": ("soft", "hard"),
    "training.precision": ("float32", "bfloat16"),
    "active.acquisition": ACQUISITIONS,
    "active.initial_draw": ("balanced", "uniform"),
}
_AT_LEAST_ONE = (
    "coreset.samples_per_class",
    "coreset.factor",
    "matching.depth",
    "matching.width",
    "matching.real_per_class",
    "matching.network_batch",
    "network.depth",
    "network.width",
    "network.output_dim",
    "rfad.networks",
    "loop.steps",
    "loop.batch_size",
    "loop.log_every",
    "loop.checkpoint_every",
    "evaluation.networks",
    "evaluation.seeds",
    "evaluation.batch_size",
    "model.depth",
    "model.width",
    "training.steps",
    "training.batch_size",
    "training.seeds",
    "training.log_every",
    "training.checkpoint_every",
    "active.passes",
    "active.chunk",
)
_POSITIVE = (
    "rfad.regularizer",
    "optimizer.learning_rate",
    "matching.learning_rate",
    "matching.network_learning_rate",
    "features.top_db",
    "training.learning_rate",
    "training.label_scale",
)
_NOT_NEGATIVE = (
    "seed",
    "data.fold",
    "data.split_seed",
    "data.processes",
    "network.chunk",
    "network.bias_std",
    "loop.eval_every",
    "loop.patience",
    "optimizer.platt_learning_rate",
    "kip.pairs",
    "matching.outer_loop",
    "matching.inner_loop",
    "siamese.gain_db",
    "siamese.noise_db",
    "augment.gain_db",
    "augment.noise_db",
    "training.parallel",
    "training.weight_decay",
    "training.mixup",
    "training.eval_every",
    "training.patience",
    "training.augment.gain_db",
    "training.augment.noise_db",
    "active.batch",
)
_SHARES = (
    *(
        f"{group}augment.{name}"
        for group in ("", "training.")
        for name in ("time_shift", "background", "time_mask", "frequency_mask")
    ),
    *(
        f"siamese.{name}"
        for name in ("time_shift", "frequency_shift", "time_mask", "frequency_mask")
    ),
    "training.warmup",
    "training.label_smoothing",
)
# Shares that cannot be the whole.
_LESS_THAN_ONE = (
    "matching.momentum",
    "siamese.time_stretch",
    "model.dropout",
    "training.momentum",
    "training.average",
)


def names(config: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from names(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def get(config: Any, name: str) -> Any:
    """The field of ``config`` with a dotted name."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def replace(config: Config, changes: dict[str, Any]) -> Config:
    """A copy of ``config`` with fields changed by their dotted names.

    Raises:
      UserError: there is no such field.
    """
    result = from_dict(dataclasses.asdict(config))
    known = set(names(config))
    for name, value in changes.items():
        if name not in known:
            raise UserError(f"there is no setting {name!r}")
        *groups, field = name.split(".")
        setattr(get(result, ".".join(groups)) if groups else result, field, value)
    return result


def record(config: Config, groups: Iterable[str]) -> dict[str, Any]:
    """Some groups of settings, as a run directory keeps them."""
    values = dataclasses.asdict(config)
    return {name: values[name] for name in groups}


def from_dict(values: dict[str, Any]) -> Config:
    """Inverse of ``dataclasses.asdict``, ignoring fields of other versions."""

    def build(kind: type, values: dict[str, Any]) -> Any:
        arguments = {}
        for field in dataclasses.fields(kind):
            if field.name in values:
                value = values[field.name]
                nested = dataclasses.is_dataclass(field.type)
                arguments[field.name] = build(field.type, value) if nested else value
        return kind(**arguments)

    return build(Config, values)


def validate(config: Config) -> None:
    """Checks every setting that can be checked without the data.

    Raises:
      UserError: naming the first setting that cannot be, and what it may be.
    """

    def require(fields: Iterable[str], holds: Callable[[Any], bool], what: str) -> None:
        for name in fields:
            if not holds(get(config, name)):
                raise UserError(f"{name} must be {what}, not {get(config, name)!r}")

    for name, choices in _CHOICES.items():
        require([name], lambda value, c=choices: value in c, " or ".join(choices))
    require(_AT_LEAST_ONE, lambda value: value >= 1, "at least 1")
    require(_POSITIVE, lambda value: value > 0, "positive")
    require(_NOT_NEGATIVE, lambda value: value >= 0, "at least 0")
    require(["seed"], lambda value: value < 2**32, "below 2**32")
    require(_SHARES, lambda value: 0 <= value <= 1, "between 0 and 1")
    require(_LESS_THAN_ONE, lambda value: 0 <= value < 1, "at least 0 and below 1")
    if config.loop.patience and config.loop.keep == "last":
        raise UserError("loop.patience stops at the best: it needs loop.keep=best")
    if config.method not in REGRESSION:
        for name in ("coreset.learn_labels", "coreset.preconditioner"):
            if get(config, name):
                raise UserError(
                    f"{config.method} learns images alone, with fixed labels: {name} "
                    f"is for {' and '.join(REGRESSION)}"
                )
