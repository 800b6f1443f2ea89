"""Settings by dotted name: listing, changing and checking them."""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from typing import Any

from audiodd_jax.config import Config, CoresetConfig, EncoderConfig, LabelsConfig
from audiodd_jax.config.names import ENCODED, HEADS, MATCHING, REGRESSION, SELECTION
from audiodd_jax.config.packing import Packing
from audiodd_jax.config.user_paths import expanded, is_url
from audiodd_jax.errors import UserError

# The settings that each kind of run depends on and records.
TRAINING = ("seed", "data", "features", "model", "training")
ACTIVE = (*TRAINING, "active", "encoder")
SESSION = (*ACTIVE, "session")
_OTHERS = ("model", "training", "active", "session", "tracker")
DISTILLATION = tuple(
    field.name for field in dataclasses.fields(Config) if field.name not in _OTHERS
)


def names(config: Any) -> Iterator[str]:
    """Yields the dotted names of all settings."""
    return (name for name, _ in _leaves(config))


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field]]:
    """Yields the dotted names of all settings, with their fields."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field


def get(config: Any, name: str) -> Any:
    """Returns the value of a setting by its dotted name."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def replace(config: Config, changes: dict[str, Any]) -> Config:
    """Returns a copy with settings changed by their dotted names.

    Raises:
      UserError: an unknown setting.
    """
    result = from_dict(dataclasses.asdict(config))
    known = set(names(config))
    for name, value in changes.items():
        if name not in known:
            raise UserError(f"unknown setting {name!r}")
        *groups, field = name.split(".")
        setattr(get(result, ".".join(groups)) if groups else result, field, value)
    return result


def record(config: Config, groups: Iterable[str]) -> dict[str, Any]:
    """Returns groups of settings as ``config.json`` records them.

    The cache folder belongs to the machine and not to the run, and is left out.
    """
    values = dataclasses.asdict(config)
    del values["data"]["cache_dir"]
    if (place := config.data.data_dir) and not is_url(place):
        # So that the run can be used in any working folder.
        values["data"]["data_dir"] = os.path.abspath(expanded(place))
    # As earlier versions recorded it, in one way.
    packing = Packing.parse(config.coreset.factor)
    values["coreset"]["factor"] = packing.setting
    found = {name: values[name] for name in groups}
    encoder = found.get("encoder")
    if encoder and not encoder["name"]:  # as before they were possible
        del found["encoder"]
    if config.evaluation.metric != "auto":  # early stopping of networks depends on it
        found.setdefault("evaluation", {"metric": config.evaluation.metric})
    return found


def with_cache(config: Config, cache_dir: str | os.PathLike | None) -> Config:
    """Returns the configuration with a cache folder; None keeps the one it has."""
    if cache_dir is None:
        return config
    return replace(config, {"data.cache_dir": os.fspath(cache_dir)})


def from_dict(values: dict[str, Any], kind: type = Config) -> Any:
    """Inverts ``dataclasses.asdict``, ignoring fields of other versions."""
    arguments = {}
    for field in dataclasses.fields(kind):
        if field.name in values:
            value = values[field.name]
            if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
                value = from_dict(value, field.type)
            elif field.type is str and isinstance(value, int):
                value = str(value)  # coreset.factor
            elif isinstance(value, list):
                value = tuple(value)  # JSON has no tuples
            arguments[field.name] = value
    return kind(**arguments)


def validate(config: Config) -> None:
    """Checks every setting that can be checked without the data.

    Raises:
      UserError: the first setting whose constraint does not hold.
    """
    for name, field in _leaves(config):
        constraint = field.metadata.get("constraint")
        value = get(config, name)
        if constraint and not constraint.holds(value):
            raise UserError(f"{name} must be {constraint.text}, not {value!r}")
    if config.loop.patience and config.loop.keep == "last":
        raise UserError("loop.patience needs loop.keep=best")
    if config.coreset.views and not config.teacher.networks:
        raise UserError(
            "coreset.views are labelled by a teacher: set teacher.networks, to 2 for "
            "example"
        )
    if config.is_aligned and not config.teacher.networks:
        raise UserError(
            "rfad.views are labelled by a teacher: set teacher.networks, to 2 for "
            "example, or rfad.views to 0"
        )
    if config.is_aligned and config.coreset.learn_labels:
        raise UserError(
            "with rfad.views the loss is of the teacher's labels: set "
            "coreset.learn_labels to false"
        )
    if config.views.augment.background:
        raise UserError(
            "views.augment.background is not possible: views are made from the "
            "coreset, which has no background noise"
        )
    if config.method in SELECTION and config.coreset.init.endswith(".npz"):
        raise UserError(
            f"{config.method} selects real clips: it does not start from the coreset "
            f"coreset.init={config.coreset.init}"
        )
    _check_size(config.coreset)
    if config.coreset.nested and config.method not in (*SELECTION, "rfad"):
        raise UserError(
            f"{config.method} does not learn nested coresets: use rfad, or select clips"
        )
    _check_labels(config.labels, bool(config.teacher.networks))
    changes = [get(config.augment, n) for n in names(config.augment) if "snr" not in n]
    is_heard = config.encoder.distil == "spectrograms"
    is_possible = {
        "augment": not any(changes),
        "rfad.views": not config.is_aligned,
        "teacher.networks": is_heard or not config.teacher.networks,
    }
    _check_encoder(config.encoder, config.method, config.coreset, is_possible)
    if config.method in (*MATCHING, *HEADS, *SELECTION):
        for name in ("learn_labels", "solve_labels", "preconditioner"):
            if getattr(config.coreset, name):
                raise UserError(
                    f"{config.method} has fixed labels and learns images only: "
                    f"coreset.{name} is for {', '.join(REGRESSION)}"
                )


def _check_encoder(
    encoder: EncoderConfig,
    method: str,
    coreset: CoresetConfig,
    is_possible: dict[str, bool],
) -> None:
    """Checks that a method and a coreset are possible with an encoder, or without one.

    ``is_possible`` says it of other settings, by name.
    """
    if not encoder.name:
        if method in HEADS:
            raise UserError(
                f"{method} matches gradients of a head on an encoder: add --encoder, "
                "such as speech_embedding"
            )
        return
    if method not in ENCODED:
        raise UserError(
            f"{method} does not learn for an encoder; choose from {', '.join(ENCODED)}"
        )
    for name, holds in is_possible.items():
        if not holds:
            raise UserError(
                f"{name} is not possible with an encoder, which embeds training clips "
                "once: leave it out, or set encoder.views for views of the coreset"
            )
    if encoder.distil == "spectrograms":
        return
    given = {
        "encoder.views": encoder.views,
        "coreset.budget": coreset.budget,
        "coreset.factor": Packing.parse(coreset.factor) != Packing(),
        "coreset.preconditioner": coreset.preconditioner,
    }
    for name, value in given.items():
        if value:
            raise UserError(
                f"{name} is for spectrograms: leave it out with --distil=embeddings"
            )


def _check_size(coreset: CoresetConfig) -> None:
    """Checks that a coreset's size is given in one way."""
    if coreset.samples and coreset.budget:
        raise UserError(
            f"budget={coreset.budget} chooses the samples per class: leave out "
            f"samples={coreset.samples}"
        )
    if coreset.samples and coreset.samples_per_class:
        raise UserError(
            f"samples={coreset.samples} (in all) and samples_per_class="
            f"{coreset.samples_per_class} exclude each other: pass one of them, or 0 "
            "for the other"
        )
    if coreset.samples and coreset.nested:
        raise UserError(
            "nested coresets have equally many spectrograms of each class: pass "
            "--samples_per_class instead of --samples"
        )
    if not coreset.samples and not coreset.samples_per_class:
        raise UserError("coreset.samples_per_class must be at least 1, not 0")
    if coreset.spread != "even" and not coreset.samples:
        raise UserError(
            f"spread={coreset.spread} is for samples in all: pass --samples"
        )


def _check_labels(labels: LabelsConfig, has_teacher: bool) -> None:
    """Checks that the labels are chosen in one way, and completely."""
    is_given = {
        "labels.run": labels.run,
        "labels.fraction": labels.fraction < 1,
        "labels.indices": labels.indices,
    }
    given = [name for name, value in is_given.items() if value]
    if len(given) > 1:
        raise UserError(f"{given[0]} and {given[1]} exclude each other")
    if labels.budget and not labels.run:
        raise UserError(
            "labels.run and labels.budget belong together, a run of active learning "
            "and one of its budgets: --labelled=RUN@20%"
        )
    if labels.pseudo and not given:
        raise UserError(
            "labels.pseudo labels the clips that --labelled, --fraction or --indices "
            "leave out: pass one of them"
        )
    if labels.pseudo and not has_teacher:
        raise UserError(
            "labels.pseudo needs a teacher: set teacher.networks, to 2 for example"
        )
