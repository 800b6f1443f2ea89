"""Cards: a run's README, from its result and a Markdown template per kind of run."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from audiodd_jax.config import ActiveConfig, ModelConfig, TrainingConfig
from audiodd_jax.coreset.dataset import coreset_config
from audiodd_jax.coreset.file import Coreset
from audiodd_jax.data import datasets
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.features.metric import BALANCED_ACCURACY, counts_in_words, score_of
from audiodd_jax.report import tables
from audiodd_jax.report.evaluation_table import learned_from
from audiodd_jax.report.tables import Table, mean_std
from audiodd_jax.runtime.files import to_json
from audiodd_jax.training.scores import Evaluation

_KEPT = {
    "best": (
        "the latest whose validation {metric} is within one standard error of the best"
    ),
    "last": "the last one",
}
_METHODS = {
    "random": "selected at random",
    "herding": "selected by herding",
    "k_center": "selected by k-center",
    "medoids": "selected as medoids of clusters",
    "lgm": "distilled with LGM",
    "rfad": "distilled with RFAD",
    "frepo": "distilled with FRePo",
    "kip": "distilled with KIP",
    "dc": "distilled with DC",
    "dsa": "distilled with DSA",
    "dm": "distilled with DM",
}
_INITIAL = {
    "real": "real clips",
    "noise": "noise",
    "herding": "real clips by herding",
    "k_center": "real clips by k-center",
}


def initial_in_words(result: dict[str, Any]) -> str:
    """Describes the start of a distillation."""
    return _INITIAL.get(result["start"], f"coreset {result['start']}")


def labels_in_words(result: dict[str, Any]) -> str:
    """Describes the training labels that were used; empty if all of them were."""
    if not (labels := result.get("labels")):
        return ""
    used, total, pseudo = labels["used"], result["num_train"], labels["pseudo"]
    others = f"; {pseudo:,} other clips with labels by the teacher" if pseudo else ""
    return (
        f"{used:,} of {total:,} clips in the training split "
        f"({100 * used / total:.1f} %), chosen {labels['chosen']}{others}"
    )


def constant_warning(result: dict[str, Any]) -> str:
    """Returns a sentence if a score is not above the constant answer's; else empty."""
    name = result.get("majority_class")
    if name is None:
        return ""
    metric = tables.metric_of([result])
    constant = result["majority_accuracy"]
    if metric == BALANCED_ACCURACY:
        constant = 1 / (result["num_classes"] - len(result["untested_classes"]))
    if round(100 * score_of(result), 1) > round(100 * constant, 1):
        return ""
    return (
        f"This is no better than always answering {name!r}, the largest class, whose "
        f"{metric} is {100 * constant:.1f} %."
    )


def warning(result: dict[str, Any]) -> str:
    """Returns warnings about a coreset: a useless score, an unchanged start."""
    constant = constant_warning(result)
    if not result["steps"] or result["best_step"]:
        return constant
    start = initial_in_words(result)
    if result.get("solved_labels"):
        start += " with solved labels"
    return f"{constant} ".lstrip() + (
        f"Distillation did not improve on the initial {start} in validation, so the "
        "coreset is the unchanged start. Try another "
        "--config.optimizer.learning_rate, stronger --config.augment settings, or "
        "--config.coreset.init=herding."
    )


def distillation(
    result: dict[str, Any],
    scores: Sequence[Evaluation],
    coreset: Coreset,
    data: Dataset,
) -> str:
    """Returns the card of a distillation or selection from its ``result.json``.

    ``scores`` are those of the coreset, then of the initial one.
    """
    names = "selected clips", "random clips"
    if result["steps"]:
        names = "distilled coreset", f"initial {initial_in_words(result)}"
    metric = tables.metric_of([result])
    rows = [
        {"": name, f"{metric} on the test split": str(one)}
        | tables.beside([result], prefix)
        for name, one, prefix in zip(names, scores, ("", "start_"), strict=True)
    ]
    config = coreset_config(coreset)
    title = data.own_name or datasets.lookup(data.name).title
    program = Path(sys.argv[0]).name
    if program in ("audiodd", "__main__.py"):  # or python -m audiodd_jax
        command = shlex.join(["audiodd", *map(_without_folders, sys.argv[1:])])
    else:
        command = "audiodd_jax.distill(config, workdir), from Python"
    return _render(
        "distill.md",
        result,
        scores=tables.markdown(tables.from_records(rows)),
        classes=counts_in_words(result),
        kept=_KEPT[config.loop.keep].format(metric=metric),
        unimproved=warning(result),
        metric=metric,
        used_labels=labels_in_words(result),
        how=_method(result),
        budget=config.coreset.budget,
        coreset=coreset,
        data=data,
        evaluation=config.evaluation,
        width=config.evaluation.width or config.network.width,
        dataset_title=title,
        command=command,
    )


def _method(result: dict[str, Any]) -> str:
    """Describes how a coreset was made, such as "distilled with RFAD"."""
    method = result["method"]
    return _METHODS.get(method, f"distilled with {method}")


def _without_folders(argument: str) -> str:
    """Shortens a path outside the working directory to its last part."""
    flag, sign, value = ("", "", argument)
    if argument.startswith("--"):
        flag, sign, value = argument.partition("=")
    path = Path(value)
    if path.is_absolute() or path.parts[:1] in (("..",), ("~",)):
        return f"{flag}{sign}{path.name}"
    return argument


def folds(result: dict[str, Any], are_official: bool) -> str:
    """Returns the card of a run of every fold from its ``result.json``."""
    percent = lambda share: f"{100 * share:.1f}"
    spread = lambda name: (
        f"{percent(score_of(result, name))} "
        f"± {percent(score_of(result, name + '_std'))}"
    )
    name = tables.metric_of([result])
    starts = {"": "distilled coreset", "start_": f"initial {initial_in_words(result)}"}
    scores = [
        {"": text, f"{name} (%)": spread(f"{prefix}test_accuracy")}
        | tables.beside([result], prefix)
        for prefix, text in starts.items()
    ]
    by_fold = [
        {
            "test fold": str(row["fold"]),
            "training split": f"{row['num_train']:,} clips",
            "distilled (%)": percent(score_of(row)),
            "initial (%)": percent(score_of(row, "start_test_accuracy")),
        }
        for row in result["folds"]
    ]
    return _render(
        "folds.md",
        result,
        kind="official folds" if are_official else "folds that the data names",
        how=_method(result),
        scores=tables.markdown(tables.from_records(scores)),
        by_fold=tables.markdown(tables.from_records(by_fold)),
    )


def training(
    result: dict[str, Any], accuracy: str, model: ModelConfig, recipe: TrainingConfig
) -> str:
    """Returns the card of a training from its ``result.json``.

    ``accuracy`` is the mean with its deviation, as text.
    """
    settings = {**vars(model), **vars(recipe)}
    augment = vars(settings.pop("augment"))
    settings |= {name: value for name, value in augment.items() if value}
    share = lambda value: "none" if value is None else f"{100 * value:.1f}"
    interval = score_of(result, "test_accuracy_interval95")
    half_width = "too few seeds" if interval is None else f"± {100 * interval:.1f} %"
    seeds = ", ".join(f"{100 * a:.1f} %" for a in score_of(result, "test_accuracies"))
    scores = Table(
        ("", "on the test split"),
        [
            (tables.metric_of([result]), accuracy),
            ("95 % interval of the mean", half_width),
            *tables.beside([result]).items(),
            ("each seed", seeds),
        ],
    )
    has_tags = "per_class_average_precision" in result
    classes = Table(
        ("class", "average precision (%)" if has_tags else "accuracy (%)"),
        [(name, share(a)) for name, a in per_class(result).items()],
    )
    return _render(
        "training.md",
        result,
        counts=counts_in_words(result),
        constant=constant_warning(result),
        training_set=learned_from(result["learns_from"]),
        scores=tables.markdown(scores),
        classes=tables.markdown(classes),
        recipe=", ".join(f"{name} {value}" for name, value in settings.items()),
    )


def per_class(result: dict[str, Any]) -> dict[str, float | None]:
    """Returns a training's scores per class; None for classes without test clips."""
    of_tags = result.get("per_class_average_precision")
    return of_tags or result["per_class_accuracy"]


def active_learning(result: dict[str, Any], config: ActiveConfig) -> str:
    """Returns the card of a run of active learning from its ``result.json``."""
    metric = tables.metric_of([result])
    rounds = [
        {
            "round": row.get("round", ""),
            "labelled": f"{row['labelled']:,}",
            "share of train": f"{100 * row['fraction']:.1f} %",
            f"test {metric} (%)": mean_std([score_of(row)]),
            **tables.beside([row]),
            "fewest and most per class": (
                f"{min(row['class_counts'])}, {max(row['class_counts'])}"
            ),
            "s": f"{row['training_seconds'] + row['scoring_seconds']:.0f}",
        }
        for row in result["rounds"]
    ]
    return _render(
        "active.md",
        result,
        counts=counts_in_words(result),
        constant=constant_warning(result),
        config=config,
        metric=metric,
        rounds=tables.markdown(tables.from_records(rounds).without_empty_columns()),
    )


def exported(header: dict[str, Any] | None, **values: Any) -> str:
    """Returns the card of an export, with its YAML header as on the Hub, if any."""
    # JSON is YAML.
    lines = [f"{name}: {to_json(value)}" for name, value in (header or {}).items()]
    front = "\n".join(["---", *lines, "---", "", ""]) if header else ""
    return front + _render("export.md", values)


def _render(template: str, result: dict[str, Any], **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("audiodd_jax.report"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown; the tables escape their cells
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["fixed"] = lambda number, digits: f"{number:.{digits}f}"
    if "samples_per_class" in result:
        values["per_class"] = tables.per_class(result)
    return environment.get_template(template).render({**result, **values})
