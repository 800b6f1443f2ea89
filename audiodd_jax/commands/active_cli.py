"""The command ``audiodd active``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audiodd_jax.commands.common import (
    cache_dir,
    names,
    needs_target,
    resumable,
    start,
    table,
    target,
)
from audiodd_jax.config import Config, extensions, fields, presets
from audiodd_jax.config.names import ACQUISITIONS, file_stem
from audiodd_jax.errors import UserError
from audiodd_jax.flags import parse


def active(argv: Sequence[str]) -> None:
    """Labels clips round by round, and tests what a network learns from them."""
    coresets = []

    def base(values: Any) -> Config:
        if not values.coreset:
            return presets.for_active(parse.dataset_config(values), values.model)
        from audiodd_jax.coreset.dataset import coreset_config
        from audiodd_jax.coreset.file import load_coreset

        coresets.extend(map(load_coreset, names(values.coreset)))
        return presets.for_active(coreset_config(coresets[0]), values.model)

    values, config, _ = parse.parse("active", argv, base)
    if values.fold == "all":
        raise UserError("active tests on one fold: --fold takes its number")
    if values.num_seeds < 1:
        raise UserError("num_seeds must be at least 1")
    chosen = _acquisitions(values.acquisition or config.active.acquisition)
    config = fields.replace(config, {"active.acquisition": chosen[0]})
    fields.validate(config)
    from audiodd_jax.commands import active as active_lib

    needs_target(values, "active")
    chips = target(values)
    start(values)
    if chips:
        from audiodd_jax.forecast import forecast as target_forecast

        table(target_forecast.of_active(config, chips, cache_dir(values)))
        return
    several = len(chosen) > 1 or values.num_seeds > 1 or coresets
    what = f"{'comparison' if several else chosen[0]}-seed{config.seed}"
    network = file_stem(config.model.name)
    default = Path("runs") / f"{config.data.name}-active-{network}-{what}"
    workdir = Path(values.workdir or default)
    finished = not several and (workdir / "result.json").exists()
    with resumable(workdir):
        data = active_lib.load(config, coresets, cache_dir(values))
        if several:
            found = active_lib.compare(
                config, chosen, values.num_seeds, coresets, data, workdir
            )
            print(found.table, "", sep="\n")
            table([("table and picture", str(workdir))])
            return
        result = active_lib.learn(config, data, workdir)
    if finished:
        print(f"{workdir} holds this run, finished already:")
    _show(result, workdir)


def _acquisitions(text: str) -> list[str]:
    """The acquisition functions that ``--acquisition`` names.

    Raises:
      UserError: there is none of a name, or one is named twice.
    """
    known = (*ACQUISITIONS, *extensions.names(extensions.ACQUISITIONS))
    found = list(ACQUISITIONS) if text == "all" else names(text)
    for name in found:
        if name not in known:
            raise UserError(
                f"there is no acquisition function {name!r}; there are "
                f"{', '.join(known)}, and all"
            )
    if len(set(found)) < len(found) or not found:
        raise UserError("--acquisition names each function once, and at least one")
    return found


def _show(result: dict[str, Any], path: Path) -> None:
    """Prints the rounds of one run, and where its files lie."""
    from audiodd_jax.report import tables

    metric = f"test {tables.metric_of([result])}"
    print(f"labelled   of train   {metric}      s")
    for row in result["rounds"]:
        seconds = row["training_seconds"] + row["scoring_seconds"]
        print(
            f"{row['labelled']:8,}   {100 * row['fraction']:6.2f} %   "
            f"{100 * row['test_accuracy']:{len(metric) - 2}.1f} % {seconds:6.0f}"
        )
    lines = [
        ("labelled clips", str(path / "labelled.npy")),
        ("weights", str(path / "networks.npz")),
        ("picture", str(path / "figures" / "learning_curve.png")),
        ("card", str(path / "README.md")),
    ]
    print()
    table(lines)
