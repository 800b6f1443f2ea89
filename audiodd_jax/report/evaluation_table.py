"""The verdict on a coreset as tables: accuracies side by side, and class by class."""

import math
from collections.abc import Sequence

from audiodd_jax.training.evaluation import Evaluation

_WHAT = {
    "coreset": "coreset",
    "hard": "coreset, hard labels",
    "random": "real clips, random",
    "herding": "real clips, herding",
    "all": "all training clips",
}

# Protocol, what was learnt from, clips, share of the training split, scores, seconds.
Line = tuple[str, str, int, float, Evaluation, float]


def told(learns_from: str) -> str:
    """What was learnt from, in words."""
    return _WHAT.get(learns_from, f"real clips, {learns_from}")


def render(lines: Sequence[Line]) -> str:
    """The comparison as a Markdown table, a line a protocol and thing learnt from."""
    text = [
        "| protocol | learns from | clips | of train | accuracy (%) | 95 % interval "
        "| macro F1 | each seed | s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for protocol, learns_from, clips, fraction, scores, seconds in lines:
        what = told(learns_from)
        half = scores.interval
        interval = "" if math.isnan(half) else f"± {100 * half:.1f}"
        f1 = "" if scores.confusions is None else f"{scores.macro_f1:.3f}"
        each = ", ".join(f"{100 * a:.1f}" for a in scores.accuracies)
        text.append(
            f"| {protocol} | {what} | {clips:,} | {100 * fraction:.2f} % "
            f"| {str(scores).removesuffix(' %')} | {interval} | {f1} | {each} "
            f"| {seconds:.0f} |"
        )
    return "\n".join(text)


def render_classes(lines: Sequence[Line], class_names: Sequence[str]) -> str:
    """Accuracy of each class, a column a protocol and thing learnt from."""
    lines = [line for line in lines if line[4].confusions is not None]
    head = [f"{protocol}, {learns_from}" for protocol, learns_from, *_ in lines]
    text = [f"| class | {' | '.join(head)} |", "|---" * (len(lines) + 1) + "|"]
    share = lambda value: "none" if math.isnan(value) else f"{100 * value:.1f}"
    for label, name in enumerate(class_names):
        row = [share(line[4].per_class[label]) for line in lines]
        text.append(f"| {name} | {' | '.join(row)} |")
    return "\n".join(text)
