"""The command ``audiodd distill``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audiodd_jax.commands.common import (
    cache_dir,
    percent,
    resumable,
    start,
    table,
    target,
)
from audiodd_jax.config import fields
from audiodd_jax.flags import parse


def distill(argv: Sequence[str]) -> None:
    """Distils a dataset to a coreset, scores it and draws it."""
    values, config, _ = parse.parse("distill", argv, parse.dataset_config)
    fields.validate(config)
    from audiodd_jax.commands import distill as distill_task
    from audiodd_jax.commands import folds as cross_validate

    chips = target(values)
    start(values, float64=config.rfad.kernel_precision == "float64")
    data = config.data
    name = "-".join(filter(None, (data.name, data.variant)))
    fold = f"-fold{values.fold}" if values.fold else ""
    default = (
        f"{name}{fold}-{config.method}-{config.coreset.samples_per_class}-"
        f"seed{config.seed}"
    )
    workdir = Path(values.workdir or Path("runs") / default)
    if values.dry_run:
        from audiodd_jax.forecast import dry_run
        from audiodd_jax.forecast import forecast as target_forecast

        if chips:
            of_target = target_forecast.of_distillation
            table(of_target(config, chips, cache_dir(values)))
        else:
            table(dry_run.forecast(config, cache_dir(values)))
        return
    finished = (workdir / "result.json").exists()
    with resumable(workdir):
        if values.fold == "all":
            run = cross_validate.distill(config, workdir, cache_dir(values))
        else:
            run = distill_task.distill(config, workdir, cache_dir(values))
    if finished:
        print(f"{workdir} holds this run, finished already:")
    if values.fold == "all":
        _show_folds(run.result, run.path)
    else:
        _show_result(run.result, run.path)


def _show_result(result: dict[str, Any], path: Path) -> None:
    spread = f" ± {100 * result['test_accuracy_std']:.1f}"
    from audiodd_jax.report import cards, tables

    start, metric = cards.initial_in_words(result), tables.metric_of([result])
    is_learnt, factor = result["steps"] > 0, result.get("factor", 1)
    baseline = "the initial coreset" if is_learnt else "the same number of random clips"
    held = f", {factor} in each" if factor > 1 else ""
    rows = [
        ("coreset", f"{result['num_samples']} spectrograms{held}, "
         f"{result['samples_per_class']} per class: "
         f"{percent(result['fraction_of_train'])} of {result['num_train']:,} clips"),
        *_label_rows(result),
        ("bytes", f"{result['bytes']:,}, of {result['train_bytes']:,} of raw audio"),
        (f"test {metric}, {'distilled' if is_learnt else 'selected clips'}",
         f"{100 * result['test_accuracy']:.1f}{spread} %"),
        (f"test {metric}, {start}",
         f"{100 * result['start_test_accuracy']:.1f} % ({baseline})"),
        *_tag_rows(result),
        ("protocol", f"{result['protocol']}, {len(result['test_accuracies'])} seeds"),
        ("distillation", f"{result['method']}, {result['steps']} steps, "
         f"{result['wall_seconds']:.0f} s"),
        *_teacher_rows(result),
        ("artefact", str(path / "coreset.npz")),
        ("pictures", str(path / "figures")),
        ("card", str(path / "README.md")),
    ]  # fmt: skip
    table(rows)
    if unimproved := cards.warning(result):
        print("", unimproved, sep="\n")


def _label_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Which labels were used, if not all."""
    from audiodd_jax.report import cards

    text = cards.labels_in_words(result)
    return [("labels", text)] if text else []


def _tag_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Macro F1, if clips have tags."""
    if "macro_f1" not in result:
        return []
    before, after = result["start_macro_f1"], result["macro_f1"]
    return [("macro F1", f"{after:.3f}, before {before:.3f}")]


def _teacher_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What the teacher took, if there is one."""
    if not (teacher := result.get("teacher")):
        return []
    views = result["views"]
    labelled = f"{views} views of each spectrogram" if views else "each spectrogram"
    return [
        (
            "teacher",
            f"{teacher['seconds']:.0f} s of training, once; labelled {labelled} in "
            f"{teacher['labelling_seconds']:.0f} s",
        )
    ]


def _show_folds(result: dict[str, Any], path: Path) -> None:
    spread = lambda name: (
        f"{100 * result[name]:.1f} ± {100 * result[name + '_std']:.1f} %"
    )
    from audiodd_jax.report import cards, tables

    start, metric = cards.initial_in_words(result), tables.metric_of([result])
    each = (f"{100 * row['test_accuracy']:.1f}" for row in result["folds"])
    rows = [
        ("folds", f"{len(result['folds'])}, each the test fold once"),
        (f"test {metric}, distilled", spread("test_accuracy")),
        ("each fold", ", ".join(each) + " %"),
        (f"test {metric}, {start}", spread("start_test_accuracy")),
        ("protocol", result["protocol"]),
        ("distillation", f"{result['wall_seconds']:.0f} s"),
        (
            "each fold's run",
            str(path / f"fold{result['folds'][0]['fold']}") + " and so on",
        ),
        ("card", str(path / "README.md")),
    ]
    table(rows)
