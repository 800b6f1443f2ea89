"""The evaluation of a coreset as tables: accuracies, and accuracy per class."""

import math
from collections.abc import Sequence

from audiodd_jax.report import gains, tables
from audiodd_jax.report.gains import RELABELLED
from audiodd_jax.report.tables import Table
from audiodd_jax.training.scores import Evaluation

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
    if name.endswith(RELABELLED):
        return learned_from(name.removesuffix(RELABELLED)) + ", teacher's labels"
    return _NAMES.get(name, f"real clips, {name}")


def render(lines: Sequence[Line]) -> str:
    """The comparison as a Markdown table, one line per protocol and training set."""
    columns = (
        "protocol",
        "learns from",
        "clips",
        "of train",
        f"{_metric(lines)} (%)",
        "95 % interval",
        "macro F1",
        "each seed",
        "gap closed",
        "s",
    )
    rows = []
    for protocol, name, clips, fraction, scores, seconds in lines:
        half = scores.interval
        means = _means(lines, protocol)
        closed = None if name in ("random", "all") else gains.gap_closed(means, name)
        rows.append(
            (
                protocol,
                learned_from(name),
                f"{clips:,}",
                f"{100 * fraction:.2f} %",
                str(scores).removesuffix(" %"),
                "" if math.isnan(half) else f"± {100 * half:.1f}",
                f"{scores.macro_f1:.3f}" if scores.is_detailed else "",
                ", ".join(f"{100 * a:.1f}" for a in scores.accuracies),
                "" if closed is None else f"{100 * closed:.0f} %",
                f"{seconds:.0f}",
            )
        )
    if not any(row[-2] for row in rows):  # without random and all clips
        columns = (*columns[:-2], columns[-1])
        rows = [(*row[:-2], row[-1]) for row in rows]
    return tables.markdown(Table(columns, rows))


def summary(lines: Sequence[Line]) -> list[str]:
    """A sentence per protocol: what the coreset gains over random clips."""
    found = []
    for protocol in dict.fromkeys(line[0] for line in lines):
        means = _means(lines, protocol)
        gain, closed = gains.over_random(means), gains.gap_closed(means)
        if gain is None:
            continue
        same = "random" + RELABELLED in means
        labels = " with the same teacher's labels" if same else ""
        text = f"{protocol}: {100 * gain:+.1f} points over random clips{labels}"
        if closed is not None:
            text += f"; {100 * closed:.0f} % of the gap between random and all clips"
        found.append(text)
    return found


def _metric(lines: Sequence[Line]) -> str:
    """What the scores are, in words."""
    return " or ".join(dict.fromkeys(line[4].metric for line in lines))


def _means(lines: Sequence[Line], protocol: str) -> dict[str, float]:
    """Mean accuracy by training set."""
    return {line[1]: line[4].mean for line in lines if line[0] == protocol}


def render_classes(lines: Sequence[Line], class_names: Sequence[str]) -> str:
    """Scores per class, one column per protocol and training set."""
    lines = [line for line in lines if line[4].is_detailed]
    head = [f"{protocol}, {name}" for protocol, name, *_ in lines]
    share = lambda value: "none" if math.isnan(value) else f"{100 * value:.1f}"
    rows = [
        (class_name, *(share(line[4].per_class[label]) for line in lines))
        for label, class_name in enumerate(class_names)
    ]
    return tables.markdown(Table(("class", *head), rows))
