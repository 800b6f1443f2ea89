"""The command ``audiodd train``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audiodd_jax.commands.common import (
    cache_dir,
    needs_target,
    percent,
    resumable,
    start,
    table,
    target,
)
from audiodd_jax.config import Config, fields, presets
from audiodd_jax.config.names import file_stem
from audiodd_jax.errors import UserError
from audiodd_jax.flags import parse


def train(argv: Sequence[str]) -> None:
    """Trains a network on all clips, a subset, or a coreset, and scores it."""
    found = {}

    def base(values: Any) -> Config:
        if values.coreset:
            from audiodd_jax.coreset.dataset import coreset_config
            from audiodd_jax.coreset.file import load_coreset

            found["coreset"] = load_coreset(values.coreset)
            config = coreset_config(found["coreset"])
        else:
            config = parse.dataset_config(values)
        return presets.for_model(config, values.model)

    values, config, _ = parse.parse("train", argv, base)
    fields.validate(config)
    if values.fold == "all":
        raise UserError("train uses one test fold: give --fold its number")
    from audiodd_jax.commands import train as train_task

    if values.herding and values.samples_per_class is None:
        raise UserError("--herding needs --samples_per_class")
    learns_from, name_part = found.get("coreset"), "coreset"
    if _only_one(values, "coreset", "samples_per_class", "fraction", "indices"):
        learns_from, name_part = learns_from or _subset(values), _name_part(values)
    else:
        name_part = "all"
    needs_target(values, "train")
    chips = target(values)
    start(values)
    if chips:
        from audiodd_jax.coreset.subsets import Subset
        from audiodd_jax.forecast import forecast as target_forecast

        learns_from = learns_from or Subset()
        of_target = target_forecast.of_training
        table(of_target(config, chips, learns_from, cache_dir(values)))
        return
    network = file_stem(config.model.name)
    name = f"{config.data.name}-{network}-{name_part}-seed{config.seed}"
    workdir = Path(values.workdir or Path("runs") / name)
    finished = (workdir / "result.json").exists()
    with resumable(workdir):
        run = train_task.train(config, workdir, learns_from, cache_dir(values))
    if finished:
        print(f"{workdir} holds this run, finished already:")
    result = run.result
    half = result["test_accuracy_interval95"]
    interval = "" if half is None else f" (95 % interval ± {100 * half:.1f})"
    from audiodd_jax.report import cards

    tested = {k: v for k, v in cards.per_class(result).items() if v is not None}
    worst = min(tested, key=tested.get)
    rows = [
        ("network", f"{result['model']}, {result['parameters']:,} parameters"),
        ("trained on", f"{result['learns_from']}: {result['num_samples']:,} "
         f"spectrograms, {percent(result['fraction_of_train'])} of "
         f"{result['num_train']:,} clips"),
        (f"test {run.scores.metric}", f"{run.scores}{interval}"),
        ("each seed", ", ".join(f"{100 * a:.1f} %" for a in run.scores.accuracies)),
        ("macro F1", f"{result['macro_f1']:.3f}"),
        ("hardest class", f"{worst}, {100 * tested[worst]:.1f} %"),
        ("training", f"{result['steps']} steps, {result['wall_seconds']:.0f} s"),
        ("weights", str(workdir / "networks.npz")),
        ("pictures", str(workdir / "figures")),
        ("card", str(workdir / "README.md")),
    ]  # fmt: skip
    table(rows)


def _only_one(values: Any, *names: str) -> bool:
    """Whether one of the flags is given.

    Raises:
      UserError: several are given.
    """
    given = [name for name in names if values[name].present]
    if len(given) > 1:
        raise UserError(f"--{given[0]} and --{given[1]} exclude each other")
    return bool(given)


def _subset(values: Any) -> Any:
    """The training clips that the flags select."""
    from audiodd_jax.coreset import subsets

    if values.samples_per_class is not None:
        if values.samples_per_class < 1:
            raise UserError("samples_per_class must be at least 1")
        kind = "herding" if values.herding else "random"
        return subsets.Subset(kind, per_class=values.samples_per_class)
    if values.fraction is not None:
        return subsets.fraction_of(values.fraction)
    return subsets.read_indices(Path(values.indices))


def _name_part(values: Any) -> str:
    """The training data, as a part of the run directory's name."""
    if values.samples_per_class is not None:
        return f"{'herding' if values.herding else 'random'}{values.samples_per_class}"
    if values.fraction is not None:
        return f"{100 * values.fraction:g}percent"
    return "indices" if values.indices else "coreset"
