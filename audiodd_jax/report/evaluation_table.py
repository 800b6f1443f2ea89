"""An evaluation as tables and sentences: a coreset next to baselines of real clips.

Two numbers say how much a coreset gains. Its improvement over random clips compares
with clips that have the same labels and recipe, so it is due to the spectrograms. The
share of the gap closed relates it to the gain that is possible: 0 is random clips with
their own hard labels, 1 is all training clips; it is negative below random clips.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from audiodd_jax.config.names import file_stem
from audiodd_jax.report import figures, tables
from audiodd_jax.report.tables import Table
from audiodd_jax.runtime.files import write_atomically, write_json
from audiodd_jax.training.scores import Evaluation

# Suffix of a baseline's name: its clips with labels from the coreset's teacher.
RELABELLED = "+teacher"
_NAMES = {
    "coreset": "coreset",
    "hard": "coreset, hard labels",
    "random": "real clips, random",
    "herding": "real clips, herding",
    "all": "all training clips",
}


class Row(NamedTuple):
    """A row of the evaluation.

    Attributes:
      protocol: ``krr``, an exact kernel, or a network's name.
      learns_from: ``coreset``, ``hard`` (its images with hard labels), a subset of real
        clips, or a subset with labels from the coreset's teacher.
      clips: number of spectrograms or clips in the training set.
      fraction: ``clips`` as a fraction of the training split.
      seconds: duration of the original training, or of this kernel regression.
    """

    protocol: str
    learns_from: str
    clips: int
    fraction: float
    scores: Evaluation
    seconds: float


def learned_from(name: str) -> str:
    """Describes a training set by its name: ``random`` is "real clips, random"."""
    if name.endswith(RELABELLED):
        return learned_from(name.removesuffix(RELABELLED)) + ", teacher's labels"
    return _NAMES.get(name, f"real clips, {name}")


def render(rows: Sequence[Row]) -> str:
    """Returns the evaluation as a Markdown table, without empty columns."""
    metric = " or ".join(dict.fromkeys(row.scores.metric for row in rows))
    records = []
    for row in rows:
        scores, closed = row.scores, None
        if row.learns_from not in ("random", "all"):
            closed = gap_closed(_means(rows, row.protocol), row.learns_from)
        interval = 100 * scores.interval
        record = {
            "protocol": row.protocol,
            "learns from": learned_from(row.learns_from),
            "clips": f"{row.clips:,}",
            "share of train": f"{100 * row.fraction:.2f} %",
            f"{metric} (%)": str(scores).removesuffix(" %"),
            "95 % interval": "" if math.isnan(interval) else f"± {interval:.1f}",
            **beside(scores),
            "each seed": ", ".join(f"{100 * a:.1f}" for a in scores.values),
            "gap closed": "" if closed is None else f"{100 * closed:z.0f} %",
            "s": f"{row.seconds:.0f}",
        }
        records.append(record)
    return tables.markdown(tables.from_records(records).without_empty_columns())


def beside(scores: Evaluation) -> dict[str, str]:
    """Returns the other scores, by name."""
    result = {"measure": scores.metric, **scores.fields()}
    if scores.is_detailed:
        result["macro_f1"] = scores.macro_f1
    return tables.beside([result])


def summary(rows: Sequence[Row]) -> list[str]:
    """Returns a sentence per protocol: how much the coreset gains over random clips."""
    sentences = []
    for protocol in dict.fromkeys(row.protocol for row in rows):
        means = _means(rows, protocol)
        base, labels = "random" + RELABELLED, " with the same teacher's labels"
        if base not in means:
            base, labels = "random", ""
        if not {base, "coreset"} <= means.keys():
            continue
        gain = means["coreset"] - means[base]
        text = f"{protocol}: {100 * gain:+.1f} points over random clips{labels}"
        if (closed := gap_closed(means)) is not None:
            text += f"; {100 * closed:z.0f} % of the gap between random and all clips"
        sentences.append(text)
    return sentences


def _means(rows: Sequence[Row], protocol: str) -> dict[str, float]:
    """Returns the mean accuracy by training set."""
    return {
        row.learns_from: row.scores.mean for row in rows if row.protocol == protocol
    }


def gap_closed(means: Mapping[str, float], name: str = "coreset") -> float | None:
    """Share of the gap that a training set closes; None without a gap or a row."""
    if not {"random", "all", name} <= means.keys():
        return None
    gap = means["all"] - means["random"]
    return (means[name] - means["random"]) / gap if gap > 0 else None


def write(rows: Sequence[Row], class_names: tuple[str, ...], out: Path) -> None:
    """Writes ``evaluation.json``, ``README.md`` and a picture per row to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    values = [
        {
            "learns_from": row.learns_from,
            "num_samples": row.clips,
            "fraction_of_train": row.fraction,
            "seconds": row.seconds,
            **row.scores.summary(class_names),
        }
        for row in rows
    ]
    write_json(out / "evaluation.json", values)
    share = lambda value: "none" if math.isnan(value) else f"{100 * value:.1f}"
    head, columns, pictures = ["class"], [class_names], []
    for row in rows:
        if not row.scores.is_detailed:  # means of folds have no confusion matrices
            continue
        head.append(f"{row.protocol}, {row.learns_from}")
        columns.append(list(map(share, row.scores.per_class)))
        name = f"{file_stem(row.protocol)}-{row.learns_from.rstrip('%')}.png"
        title = f"{row.protocol}, trained on {row.learns_from}"
        figures.by_class(row.scores, class_names, title, out / name)
        pictures.append(f"![{title}]({name})")
    by_class = tables.markdown(Table(head, list(zip(*columns, strict=True))))
    over = "seeds, which draw networks and random clips from one split of the data"
    if not rows[0].scores.is_detailed:
        over = "folds, each the test fold once"
    parts = [
        "# Evaluation",
        f"{rows[0].scores.metric.capitalize()} on the test split, mean ± standard "
        f"deviation over {over}.",
        render(rows),
        *summary(rows),
        *([by_class, *pictures] if pictures else []),
    ]
    write_atomically(out / "README.md", "\n\n".join(parts) + "\n")
