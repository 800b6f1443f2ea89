"""Cards: a run's README from its result, by a Markdown template per kind of run."""

from typing import Any

import jinja2

from audiodd_jax.config import ActiveConfig, ModelConfig, TrainingConfig
from audiodd_jax.report import tables
from audiodd_jax.report.evaluation_table import learned_from
from audiodd_jax.report.tables import Table, mean_std
from audiodd_jax.runtime.files import to_json

_KEPT = {
    "best": "the last within a standard error of the best validation {metric}",
    "last": "the last",
}


_INITIAL = {
    "real": "real clips",
    "noise": "noise",
    "herding": "real clips by herding",
    "k_center": "real clips by k-center",
}


def initial_in_words(result: dict[str, Any]) -> str:
    """What a distillation started from."""
    return _INITIAL.get(result["start"], f"coreset {result['start']}")


def labels_in_words(result: dict[str, Any]) -> str:
    """Which labels of the training split were used; empty if all of them were."""
    if not (labels := result.get("labels")):
        return ""
    used, total, pseudo = labels["used"], result["num_train"], labels["pseudo"]
    others = f"; {pseudo:,} other clips with labels by the teacher" if pseudo else ""
    return (
        f"{used:,} of {total:,} training clips ({100 * used / total:.1f} %), "
        f"chosen {labels['chosen']}{others}"
    )


def warning(result: dict[str, Any]) -> str:
    """What to say if the coreset is the start of its distillation; else empty."""
    if not result["steps"] or result["best_step"]:
        return ""
    start = initial_in_words(result)
    if result.get("solved_labels"):
        start += " with solved labels"
    return (
        f"Distillation did not improve on the initial {start} by validation: the "
        "coreset is the start. Try another "
        "--config.optimizer.learning_rate, stronger --config.augment settings, or "
        "--config.coreset.init=herding."
    )


def distillation(values: dict[str, Any]) -> str:
    """The card of a distillation or selection.

    Args:
      values: of ``result.json``, and what ``templates/distill.md`` names beside.
    """
    rows = [
        ("distilled coreset", values["test"]),
        (f"initial {initial_in_words(values)}", values["start_test"]),
    ]
    if not values["steps"]:
        rows = [
            ("selected clips", values["test"]),
            ("random clips", values["start_test"]),
        ]
    metric = tables.metric_of([values])
    scores = tables.markdown(Table(("", f"{metric} on the test split"), rows))
    kept = _KEPT[values["keep"]].format(metric=metric)
    unimproved = warning(values)
    return _render(
        "distill.md",
        values,
        scores=scores,
        kept=kept,
        unimproved=unimproved,
        measure=metric,
        bought=labels_in_words(values),
    )


def folds(result: dict[str, Any]) -> str:
    """The card of a run of every fold.

    Args:
      result: of ``result.json``.
    """
    percent = lambda share: f"{100 * share:.1f}"
    spread = lambda name: f"{percent(result[name])} ± {percent(result[name + '_std'])}"
    start = initial_in_words(result)
    scores = Table(
        ("", f"{tables.metric_of([result])} (%)"),
        [
            ("distilled coreset", spread("test_accuracy")),
            (f"initial {start}", spread("start_test_accuracy")),
        ],
    )
    by_fold = Table(
        ("test fold", "training clips", "distilled (%)", "initial (%)"),
        [
            (
                str(row["fold"]),
                f"{row['num_train']:,}",
                percent(row["test_accuracy"]),
                percent(row["start_test_accuracy"]),
            )
            for row in result["folds"]
        ],
    )
    return _render(
        "folds.md",
        result,
        scores=tables.markdown(scores),
        by_fold=tables.markdown(by_fold),
    )


def training(
    result: dict[str, Any], accuracy: str, model: ModelConfig, recipe: TrainingConfig
) -> str:
    """The card of a training.

    Args:
      result: of ``result.json``.
      accuracy: mean and deviation.
      model: settings of the network.
      recipe: settings of the training.
    """
    settings = {**vars(model), **vars(recipe)}
    augment = vars(settings.pop("augment"))
    settings |= {name: value for name, value in augment.items() if value}
    share = lambda value: "none" if value is None else f"{100 * value:.1f}"
    interval = result["test_accuracy_interval95"]
    scores = Table(
        ("", "on the test split"),
        [
            (tables.metric_of([result]), accuracy),
            (
                "95 % interval of the mean",
                "one seed" if interval is None else f"± {100 * interval:.1f} %",
            ),
            ("macro F1", f"{result['macro_f1']:.3f}"),
            (
                "each seed",
                ", ".join(f"{100 * a:.1f} %" for a in result["test_accuracies"]),
            ),
        ],
    )
    classes = Table(
        ("class", f"{name_per_class(result).replace('_', ' ')} (%)"),
        [(name, share(a)) for name, a in per_class(result).items()],
    )
    return _render(
        "training.md",
        result,
        what=learned_from(result["learns_from"]),
        scores=tables.markdown(scores),
        classes=tables.markdown(classes),
        recipe=", ".join(f"{name} {value}" for name, value in settings.items()),
    )


def name_per_class(result: dict[str, Any]) -> str:
    """What a training's scores per class are: accuracy, or average precision."""
    has_tags = "per_class_average_precision" in result
    return "average_precision" if has_tags else "accuracy"


def per_class(result: dict[str, Any]) -> dict[str, float | None]:
    """A training's scores per class; None where a class has no test clips."""
    return result[f"per_class_{name_per_class(result)}"]


def active_learning(result: dict[str, Any], config: ActiveConfig) -> str:
    """The card of one run of active learning.

    Args:
      result: of ``result.json``.
      config: settings of active learning.
    """
    metric = tables.metric_of([result])
    rounds = Table(
        (
            "labelled",
            "of train",
            f"test {metric} (%)",
            "macro F1",
            "fewest and most per class",
            "s",
        ),
        [
            (
                f"{row['labelled']:,}",
                f"{100 * row['fraction']:.1f} %",
                mean_std([row["test_accuracy"]]),
                f"{row['macro_f1']:.3f}",
                f"{min(row['class_counts'])}, {max(row['class_counts'])}",
                f"{row['training_seconds'] + row['scoring_seconds']:.0f}",
            )
            for row in result["rounds"]
        ],
    )
    own = {
        name: getattr(config, name)
        for name in ("initial", "initial_draw", "warm_start", "count_validation")
    }
    own |= {"measure": metric, "rounds": tables.markdown(rounds)}
    return _render("active.md", result, **own)


def exported(values: dict[str, Any], header: dict[str, Any] | None) -> str:
    """The card of an exported coreset.

    Args:
      values: what ``templates/export.md`` names.
      header: YAML header of the Hub's dataset cards, or None.
    """
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
    return environment.get_template(template).render({**result, **values})
