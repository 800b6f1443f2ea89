"""The evaluation of a coreset as tables: accuracies, and accuracy per class."""

import math
from collections.abc import Sequence

from audiodd_jax.report import tables
from audiodd_jax.report.tables import Table
from audiodd_jax.training.evaluation import Evaluation

_NAMES = {
    "coreset": "coreset",
    "hard": "coreset, hard labels",
    "random": "real clips, random",
    "herding": "real clips, herding",
    "all": "all training clips",
}

# Protocol, training set, clips, fraction of the training split, scores, seconds.
Line = tuple[str, str, int, float, Evaluation, float]


def learned_from(name: str) -> str:
    """A training set in words, from its name."""
    return _NAMES.get(name, f"real clips, {name}")


def render(lines: Sequence[Line]) -> str:
    """The comparison as a Markdown table, one line per protocol and training set."""
    columns = (
        "protocol",
        "learns from",
        "clips",
        "of train",
        "accuracy (%)",
        "95 % interval",
        "macro F1",
        "each seed",
        "s",
    )
    rows = []
    for protocol, name, clips, fraction, scores, seconds in lines:
        half = scores.interval
        rows.append(
            (
                protocol,
                learned_from(name),
                f"{clips:,}",
                f"{100 * fraction:.2f} %",
                str(scores).removesuffix(" %"),
                "" if math.isnan(half) else f"± {100 * half:.1f}",
                "" if scores.confusions is None else f"{scores.macro_f1:.3f}",
                ", ".join(f"{100 * a:.1f}" for a in scores.accuracies),
                f"{seconds:.0f}",
            )
        )
    return tables.markdown(Table(columns, rows))


def render_classes(lines: Sequence[Line], class_names: Sequence[str]) -> str:
    """Accuracy per class, one column per protocol and training set."""
    lines = [line for line in lines if line[4].confusions is not None]
    head = [f"{protocol}, {name}" for protocol, name, *_ in lines]
    share = lambda value: "none" if math.isnan(value) else f"{100 * value:.1f}"
    rows = [
        (class_name, *(share(line[4].per_class[label]) for line in lines))
        for label, class_name in enumerate(class_names)
    ]
    return tables.markdown(Table(("class", *head), rows))
