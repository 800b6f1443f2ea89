"""The command ``audiodd active``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audiodd_jax import cli_flags
from audiodd_jax import presets as presets_lib
from audiodd_jax import settings as settings_lib
from audiodd_jax.cli_support import cache_dir, continued, names, start, table
from audiodd_jax.config import Config
from audiodd_jax.runtime.errors import UserError


def active(argv: Sequence[str]) -> None:
    """Labels clips round by round, and tests what a network learns from them."""
    coresets = []

    def base(values: Any) -> Config:
        if not values.coreset:
            return presets_lib.for_active(
                cli_flags.dataset_config(values), values.model
            )
        from audiodd_jax import verdict
        from audiodd_jax.distillation.coreset import load_coreset

        coresets.extend(map(load_coreset, names(values.coreset)))
        return presets_lib.for_active(verdict.coreset_config(coresets[0]), values.model)

    values, config, _ = cli_flags.parse("active", argv, base)
    if values.fold == "all":
        raise UserError("active tests on one fold: --fold takes its number")
    if values.num_seeds < 1:
        raise UserError("num_seeds must be at least 1")
    chosen = _acquisitions(values.acquisition or config.active.acquisition)
    config = settings_lib.replace(config, {"active.acquisition": chosen[0]})
    settings_lib.validate(config)
    from audiodd_jax import active_run

    start(values, config)
    several = len(chosen) > 1 or values.num_seeds > 1 or coresets
    what = f"{'comparison' if several else chosen[0]}-seed{config.seed}"
    default = Path("runs") / f"{config.data.name}-active-{config.model.name}-{what}"
    workdir = Path(values.workdir or default)
    finished = not several and (workdir / "result.json").exists()
    with continued(workdir):
        data = active_run.load(config, coresets, cache_dir(values))
        if several:
            found = active_run.compare(
                config, chosen, values.num_seeds, coresets, data, workdir
            )
            print(found.table, "", sep="\n")
            table([("table and picture", str(workdir))])
            return
        result = active_run.learn(config, data, workdir)
    if finished:
        print(f"{workdir} holds this run, finished already:")
    _show(result, workdir)


def _acquisitions(text: str) -> list[str]:
    """The acquisition functions that ``--acquisition`` names.

    Raises:
      UserError: there is none of a name, or one is named twice.
    """
    known = settings_lib.ACQUISITIONS
    found = list(known) if text == "all" else names(text)
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
    print("labelled   of train   test accuracy      s")
    for row in result["rounds"]:
        seconds = row["training_seconds"] + row["scoring_seconds"]
        print(
            f"{row['labelled']:8,}   {100 * row['fraction']:6.2f} %   "
            f"{100 * row['test_accuracy']:11.1f} % {seconds:6.0f}"
        )
    lines = [
        ("labelled clips", str(path / "labelled.npy")),
        ("weights", str(path / "networks.npz")),
        ("picture", str(path / "figures" / "learning_curve.png")),
        ("card", str(path / "README.md")),
    ]
    print()
    table(lines)
