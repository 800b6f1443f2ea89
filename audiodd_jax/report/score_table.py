"""Scores of networks on a coreset and on real clips: a table, sentences, a picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from audiodd_jax.errors import UserError
from audiodd_jax.report import figures, tables
from audiodd_jax.report.tables import Table
from audiodd_jax.runtime.files import DAMAGE, read_json, write_atomically, write_json
from audiodd_jax.training import dd_ranking
from audiodd_jax.training import scores as scores_lib
from audiodd_jax.training.dd_ranking import Mean
from audiodd_jax.training.scores import Evaluation

# Kinds of labels, and training sets other than those of acquisition functions.
LABELS = {"hard": "hard labels", "soft": "one soft label", "views": "stored views"}
SETS = {
    "coreset": "coreset",
    "random": "random clips",
    "herding": "herded clips",
    "all": "all training clips",
}
_NAME = "score"
# Of the coreset and its rivals.
_COLOURS = ("C3", "C0", "C1", "C2")


class Arm(NamedTuple):
    """Networks, one per seed, that were trained on one set with one kind of labels.

    Attributes:
      network: name of the network.
      labels: a key of ``LABELS``.
      learns_from: a key of ``SETS``, or the acquisition function that chose the clips.
      num_bytes: size of spectrograms and labels; None for all training clips.
      learning_rate: the best of ``validation``, scores on validation clips by rate.
      seconds: duration of all trainings.
    """

    network: str
    labels: str
    learns_from: str
    num_bytes: int | None
    scores: Evaluation
    learning_rate: float
    validation: Mapping[str, float]
    seconds: float


class Scored(NamedTuple):
    """All arms of a coreset.

    Attributes:
      title: dataset, method and size.
      metric: name of the scores.
      licence: the data's licence.
      notes: sentences on the arms.
    """

    title: str
    metric: str
    licence: str
    arms: Sequence[Arm]
    notes: Sequence[str]

    @property
    def networks(self) -> list[str]:
        """Names of the networks."""
        return list(dict.fromkeys(arm.network for arm in self.arms))

    @property
    def kinds(self) -> list[str]:
        """Kinds of labels."""
        return list(dict.fromkeys(arm.labels for arm in self.arms))

    def rivals(self, network: str) -> list[str]:
        """Names of the sets of real clips that are stored like the coreset."""
        names = [arm.learns_from for arm in self.arms if arm.network == network]
        return [n for n in dict.fromkeys(names) if n not in ("coreset", "all")]

    def arm(self, network: str, labels: str, learns_from: str) -> Arm:
        """Returns one arm."""
        key = network, labels, learns_from
        return next(arm for arm in self.arms if arm[:3] == key)


def source(learns_from: str) -> str:
    """Describes a training set: ``random clips``."""
    return SETS.get(learns_from, f"clips by {learns_from}")


def in_words(labels: str, learns_from: str) -> str:
    """Describes an arm: ``random clips, hard labels``."""
    return f"{source(learns_from)}, {LABELS[labels]}"


def gains(scored: Scored, network: str, labels: str) -> dict[str, Mean]:
    """Returns the coreset's paired differences from the clips of each choice."""
    of = lambda name: scored.arm(network, labels, name).scores.values
    names = scored.rivals(network)
    return {name: dd_ranking.difference(of("coreset"), of(name)) for name in names}


def ranking(scored: Scored, network: str) -> dict[str, Mean]:
    """Returns HLR, IOR with the last kind of labels, and LRS (see ``dd_ranking``)."""
    of = lambda name: scored.arm(network, "hard", name).scores.values
    recovery = dd_ranking.difference(of("all"), of("coreset"))
    improvement = gains(scored, network, scored.kinds[-1])["random"]
    robust = dd_ranking.label_robust_score(recovery, improvement)
    return {"HLR": recovery, "IOR": improvement, "LRS": robust}


def table(scored: Scored) -> Table:
    """Returns a row per arm, with the coreset's paired difference from it."""
    records = []
    for arm in scored.arms:
        gain = gains(scored, arm.network, arm.labels).get(arm.learns_from)
        half_width = 100 * arm.scores.interval
        record = {
            "network": arm.network,
            "labels": LABELS[arm.labels],
            "learns from": source(arm.learns_from),
            "bytes": "" if arm.num_bytes is None else f"{arm.num_bytes:,}",
            f"{scored.metric} (%)": str(arm.scores).removesuffix(" %"),
            "95 % interval": "" if math.isnan(half_width) else f"± {half_width:.1f}",
            "coreset minus this (points)": "" if gain is None else _points(gain),
            "macro F1": f"{arm.scores.macro_f1:.3f}",
            "learning rate": f"{arm.learning_rate:g}",
            "s": f"{arm.seconds:.0f}",
        }
        records.append(record)
    return tables.from_records(records).without_empty_columns()


def _points(gain: Mean) -> str:
    """Writes a difference in points, with its 95 % interval if that is known."""
    return f"{100 * gain.mean:+.1f}" + _interval(100 * gain.interval, 1)


def _interval(half_width: float, digits: int) -> str:
    return "" if math.isnan(half_width) else f" ± {half_width:.{digits}f}"


def summary(scored: Scored) -> list[str]:
    """Returns sentences: DD-Ranking's scores, and the verdict for each network."""
    sentences = []
    for network in scored.networks:
        found = ranking(scored, network)
        values = ", ".join(
            f"{name} {value.mean:.3f}{_interval(value.interval, 3)}"
            for name, value in found.items()
        )
        kind = scored.kinds[-1]
        sentences.append(
            f"{network}, DD-Ranking in fractions (IOR with {LABELS[kind]}): {values}."
        )
        by_set = gains(scored, network, kind)
        name, gain = min(by_set.items(), key=lambda item: item[1].mean)
        sentences.append(
            f"{network}, {LABELS[kind]}: the strongest rival is {source(name)}; the "
            f"coreset minus it is {_points(gain)} points{_verdict(gain)}."
        )
    return [*sentences, *scored.notes]


def _verdict(gain: Mean) -> str:
    """Says whether the interval of a difference contains 0; empty without one."""
    if math.isnan(gain.interval):
        return ", without an interval, which needs three seeds"
    if abs(gain.mean) <= gain.interval:
        return ", so no difference is shown"
    return f", so the coreset is {'better' if gain.mean > 0 else 'worse'}"


def text(scored: Scored) -> str:
    """Returns the table and the sentences in Markdown."""
    return "\n".join([tables.markdown(table(scored)), "", *summary(scored)])


def draw(scored: Scored, path: Path) -> None:
    """Draws the accuracy of each arm, with 95 % intervals from three seeds on."""
    networks, kinds = scored.networks, scored.kinds
    figure = figures.blank(1.5 + 1.9 * len(kinds) * len(networks), 4.2)
    panels = figure.subplots(1, len(networks), sharey=True, squeeze=False)[0]
    for axes, network in zip(panels, networks, strict=True):
        everything = 100 * scored.arm(network, "hard", "all").scores.mean
        axes.axhline(everything, ls="--", lw=1, color="0.3", label=SETS["all"])
        names = "coreset", *scored.rivals(network)
        for i, (name, colour) in enumerate(zip(names, _COLOURS, strict=True)):
            arms = [scored.arm(network, kind, name) for kind in kinds]
            places = [place + 0.17 * (i - 1.5) for place in range(len(kinds))]
            means = [100 * arm.scores.mean for arm in arms]
            widths = [100 * arm.scores.interval for arm in arms]
            style = {"fmt": figures.MARKERS[i], "ms": 7, "capsize": 3, "color": colour}
            # Each network may have another acquisition function.
            is_named = name in SETS or len(networks) == 1
            label = source(name) if is_named else "best acquisition function"
            axes.errorbar(places, means, widths, label=figures.plain(label), **style)
        axes.set_xticks(range(len(kinds)), [LABELS[kind] for kind in kinds])
        axes.set_xlim(-0.5, len(kinds) - 0.5)
        axes.set_title(figures.plain(network), fontsize=10)
        axes.grid(alpha=0.3, axis="y")
    panels[0].set_ylabel(f"test {scored.metric} (%)")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, frameon=False, loc="outside lower center", ncols=3)
    figures.save(figure, scored.title, path)


def write(scored: Scored, class_names: tuple[str, ...], out: Path) -> None:
    """Writes ``score.json``, ``score.md`` and ``score.png`` to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    plain = lambda value: None if math.isnan(value) else value
    of_mean = lambda mean: {
        "mean": mean.mean,
        "interval95": plain(mean.interval),
        "each_seed": mean.values,
    }
    differences = [
        {
            "network": network,
            "labels": labels,
            "coreset_minus": name,
            **of_mean(gain),
        }
        for network in scored.networks
        for labels in scored.kinds
        for name, gain in gains(scored, network, labels).items()
    ]
    values = {
        **scored._asdict(),
        "arms": [
            {**arm._asdict(), "scores": arm.scores.summary(class_names)}
            for arm in scored.arms
        ],
        "differences": differences,
        "dd_ranking": {
            network: {k: of_mean(v) for k, v in ranking(scored, network).items()}
            for network in scored.networks
        },
    }
    write_json(out / f"{_NAME}.json", values)
    draw(scored, out / f"{_NAME}.png")
    parts = [
        f"# Score: {scored.title}",
        f"{scored.metric.capitalize()} on the test split after the last step, mean ± "
        "standard deviation over seeds. All choices were made on validation clips. "
        "Differences are paired by seed, with 95 % intervals by Student's t.",
        tables.markdown(table(scored)),
        *summary(scored),
        f"![{scored.metric} of each arm]({_NAME}.png)",
        f"Licence of the data: {scored.licence}",
    ]
    write_atomically(out / f"{_NAME}.md", "\n\n".join(parts) + "\n")


def read(folder: Path) -> Scored | None:
    """Reads what ``write`` wrote; None if nothing.

    Raises:
      UserError: the file is damaged.
    """
    file = folder / f"{_NAME}.json"
    if not file.exists():
        return None
    values = read_json(file)
    try:
        return _scored(values)
    except (*DAMAGE, AttributeError, IndexError, StopIteration) as error:
        raise UserError(f"{file} is damaged: it is not a score") from error


def _scored(values: Mapping[str, Any]) -> Scored:
    arms = tuple(
        Arm(**{**arm, "scores": scores_lib.from_summary(arm["scores"])})
        for arm in values["arms"]
    )
    scored = Scored(*(values[name] for name in Scored._fields))._replace(arms=arms)
    summary(scored)  # which reads everything
    return scored
