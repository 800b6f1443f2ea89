"""The command ``audiodd evaluate``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from audiodd_jax.commands.common import (
    cache_dir,
    names,
    needs_target,
    resumable,
    start,
    table,
    target,
)
from audiodd_jax.config import Config
from audiodd_jax.data import datasets
from audiodd_jax.errors import UserError
from audiodd_jax.flags import parse


class Target(NamedTuple):
    """What is evaluated.

    Attributes:
      coreset: the artefact; of a run over all folds, that of the first.
      folder: its run directory; ``.`` for a coreset that is given as a file.
      folds: run directories of the folds, for a run over all of them.
      config: where its data lies, and the settings that it was distilled with.
    """

    coreset: Any
    folder: Path
    folds: list[Path]
    config: Config


def evaluate(argv: Sequence[str]) -> None:
    """Scores a coreset on the test split of its dataset, with baselines if asked."""
    targets = []

    def base(values: Any) -> Config:
        targets.append(_resolve(values))
        return targets[0].config

    values, config, changes = parse.parse("evaluate", argv, base)
    (found,) = targets
    needs_target(values, "evaluate")
    chips = target(values)
    start(values, float64=config.rfad.kernel_precision == "float64")
    if chips:
        table(_forecast(values, config, changes, found.coreset, chips))
        return
    out = _out(values, found)
    rows = _run(values, config, changes, found, out)
    _show(rows, found, out)


def _forecast(
    values: Any, config: Config, changes: dict[str, Any], coreset: Any, chips: Any
) -> list[tuple[str, str]]:
    """Rows of what the protocols would take on an accelerator."""
    from audiodd_jax.forecast import forecast as target_forecast

    protocols = names(values.protocol)
    return target_forecast.of_evaluation(
        config, chips, coreset, protocols, _recipe(changes), cache_dir(values)
    )


def _recipe(changes: dict[str, Any]) -> dict[str, Any]:
    """The changes that concern networks and their training."""
    groups = ("model.", "training.")
    return {k: v for k, v in changes.items() if k.startswith(groups)}


def _resolve(values: Any) -> Target:
    """Finds the coreset that the flags name.

    Raises:
      UserError: there is none, or an unknown protocol or dataset.
    """
    from audiodd_jax.commands import folds as cross_validate
    from audiodd_jax.commands.evaluate import check_protocols
    from audiodd_jax.coreset.dataset import coreset_config
    from audiodd_jax.coreset.file import load_coreset

    if bool(values.workdir) == bool(values.coreset):
        raise UserError("evaluate needs either --workdir or --coreset")
    check_protocols(names(values.protocol))
    folder = Path(values.workdir or ".")
    folds = cross_validate.fold_directories(folder) if values.workdir else []
    first = folds[0] if folds else folder
    coreset = load_coreset(values.coreset or first / "coreset.npz")
    config = coreset_config(coreset, first if values.workdir else None)
    if values.dataset and values.dataset != config.data.name:
        datasets.lookup(values.dataset)
    return Target(coreset, folder, folds, config)


def _out(values: Any, target: Target) -> Path | None:
    """The folder for trainings, tables and pictures, if any.

    Kernel regression without baselines leaves no folder behind.
    """
    if values.out:
        return Path(values.out)
    is_plain = names(values.protocol) == ["krr"] and not values.against
    return target.folder / "evaluation" if values.workdir and not is_plain else None


def _run(
    values: Any,
    config: Config,
    changes: dict[str, Any],
    target: Target,
    out: Path | None,
) -> list[Any]:
    """Evaluates and writes tables and pictures; a row per protocol and baseline."""
    from audiodd_jax.commands import evaluate as job
    from audiodd_jax.commands import folds as cross_validate

    asked = {
        "protocols": names(values.protocol),
        "against": names(values.against),
        "config": config,
        "changes": _recipe(changes),
        "out": out,
        "cache_dir": cache_dir(values),
    }
    with resumable(out or target.folder):
        if target.folds:
            rows = cross_validate.evaluate(target.folder, **asked)
        else:
            rows = job.evaluate(target.coreset, **asked)
    if out:
        job.write(rows, target.coreset.class_names, out)
    return rows


def _show(rows: list[Any], target: Target, out: Path | None) -> None:
    """Prints the evaluation."""
    from audiodd_jax.report import evaluation_table

    coreset = target.coreset
    size = f"{coreset.labels.shape[0]} spectrograms of {coreset.metadata['dataset']}"
    lines = [("coreset", f"{size}, {len(coreset.class_names)} classes")]
    if len(rows) == 1:
        scores = rows[0].scores
        each, count = "folds" if target.folds else "seeds", len(scores.accuracies)
        number = f"{count} {each if count > 1 else each[:-1]}"
        lines += [
            ("protocol", f"{scores.protocol}, {number}"),
            (f"test {scores.metric}", str(scores)),
            (f"all {each}", ", ".join(f"{100 * a:.1f} %" for a in scores.accuracies)),
        ]
    if out:
        lines.append(("tables and pictures", str(out)))
    table(lines)
    if len(rows) > 1:
        gained = evaluation_table.summary(rows)
        print("", evaluation_table.render(rows), *gained, sep="\n")
