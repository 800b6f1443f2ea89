"""Writes a report: tables, figures, sounds and a page, from groups of runs."""

import datetime
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import jinja2

from audiodd_jax.config.names import file_stem
from audiodd_jax.features.metric import counts_in_words, score_of
from audiodd_jax.report import (
    cards,
    charts,
    figures,
    gallery,
    learning_curves,
    score_table,
    tables,
)
from audiodd_jax.report.gallery import Gallery, Options
from audiodd_jax.report.groups import (
    Group,
    by,
    class_tables,
    compare,
    grouped,
    matrices,
    metric_of,
)
from audiodd_jax.report.learning_curves import Point
from audiodd_jax.report.runs import Run
from audiodd_jax.report.score_table import Scored
from audiodd_jax.report.tables import Table, mean_std
from audiodd_jax.runtime import progress
from audiodd_jax.runtime.files import read_json, write_atomically
from audiodd_jax.version import __version__

# Most coresets in the summary.
_SENTENCES = 8
_NOTE = (
    "Scores are on the test split: mean ± sample standard deviation over seeds, which "
    "draw clips and networks from one split of the data. "
    "Bytes count images and labels as 32-bit numbers; they are compared with the "
    "recordings as 16-bit mono audio."
)
# Keys of groups.
_DATASET = attrgetter("dataset")
_NETWORK = attrgetter("dataset", "first.learner")


def write(runs: Sequence[Run], out: Path, options: Options) -> list[Gallery]:
    """Writes all parts of a report, the page last; returns the galleries on it."""
    groups = compare(runs)
    of_kind = {
        kind: [group for group in groups if group.first.kind == kind]
        for kind in ("distill", "train", "active")
    }
    distilled, titled = of_kind["distill"], _tables(of_kind, runs)
    scores = _scores(distilled)
    written = titled | {title: score_table.table(s) for title, (s, _) in scores.items()}
    for title, table in written.items():
        tables.write(table, out / "tables" / tables.stem(title))
    (out / "figures").mkdir(parents=True, exist_ok=True)
    with progress.waiting("drawing curves"):
        _draw(of_kind, out / "figures")
    heard = [group for group in distilled if _kind(group) == "spectrograms"]
    galleries = [
        gallery.make(group, out / "sounds", options)
        for group in _best(heard, options.galleries)
    ]
    names = ", ".join(sorted({run.title for run in runs} - {""}))
    unfinished = sum(not run.result for run in runs)
    made = f"audiodd_jax {__version__}, {datetime.date.today().isoformat()}: "
    made += f"{len(runs)} run{'s' * (len(runs) != 1)}"
    sentences = [_sentence(group) for group in _best(distilled, _SENTENCES)]
    if more := len(distilled) - len(sentences):
        sentences.append(f"The tables list {more} more.")
    if not distilled:
        sentences = ["None of these runs is a finished distillation; see the tables."]
    content = render(
        groups,
        galleries,
        titled,
        scores,
        title=f"Coresets of {names}" if distilled else f"Runs on {names}",
        made=made + f", {unfinished} unfinished" * (unfinished > 0),
        summary=sentences,
        origin=_origin(runs) + [note for item in galleries for note in item.notes],
    )
    write_atomically(out / "index.html", content)
    return galleries


def render(
    groups: Sequence[Group],
    galleries: Sequence[Gallery],
    titled_tables: Mapping[str, Table],
    scores: Mapping[str, tuple[Scored, str]],
    **texts: Any,
) -> str:
    """Renders the page as HTML with all text escaped; empty parts are left out.

    ``scores`` come with their pictures as data URLs. ``texts``: the ``title``, what it
    was ``made`` with, ``summary``, ``origin``.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("audiodd_jax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["mean_std"] = mean_std
    environment.filters["percent"] = _percent
    environment.filters["score_table"] = score_table.table
    environment.filters["score_sentences"] = score_table.summary
    by_dataset, by_class = by(groups, _DATASET), class_tables(groups)
    # The classes that the page can be filtered by.
    names = [name for same in by_class for name in same[0].classes.class_names]
    names += [name for item in galleries for name in item.class_names]
    return environment.get_template("page.html").render(
        note=_NOTE,
        comparison=by_dataset,
        charts=[c for same in by_dataset.values() for c in charts.draw(same)],
        size=charts,
        by_class=by_class,
        matrices=matrices(groups),
        galleries=galleries,
        tables=titled_tables,
        scores=scores,
        class_names=list(dict.fromkeys(names)),
        **texts,
    )


def _scores(distilled: Sequence[Group]) -> dict[str, tuple[Scored, str]]:
    """Returns the scores in the run directories of coresets, with their pictures."""
    found = {}
    for group in distilled:
        for run in group.runs:
            folder = run.path / "score"
            if scored := score_table.read(folder):
                title = f"Score of run {group.number}, {scored.title}, seed {run.seed}"
                picture = (folder / "score.png").read_bytes()
                found[title] = scored, gallery.data_url(picture, "image/png")
    return found


def _percent(share: float) -> str:
    """Returns a share in whole percent; small ones are not shown as 0."""
    return "<1" if 0 < share < 0.005 else f"{100 * share:.0f}"


def _best(distilled: Sequence[Group], count: int) -> list[Group]:
    """Returns the best coreset per dataset and method, followed by the others."""
    ranked = sorted(distilled, key=lambda group: -group.mean)
    method = lambda group: (group.dataset, group.first.result["method"])
    best = {method(group): group for group in reversed(ranked)}
    return sorted(ranked, key=lambda group: group is not best[method(group)])[:count]


def _kind(group: Group) -> str:
    """Names the samples of a coreset; embeddings have no sounds."""
    return group.first.result.get("distilled", "spectrograms")


def _sentence(group: Group) -> str:
    """Describes a coreset in a sentence: relative size, bytes, accuracy."""
    result, count = group.first.result, len(group.runs)
    ratio = result["train_bytes"] / result["bytes"]
    real = tested = ""
    if group.start is not None:
        start = mean_std(group.scores("start_test_accuracy"))
        real = f"; the same number of real clips gives {start} %"
    if missing := len(result.get("untested_classes", ())):
        classes = result["num_classes"]
        tested = f" (on {classes - missing} of {classes} classes; the others have no "
        tested += "test clips)"
    warnings = {cards.warning(run.result) for run in group.runs} - {""}
    return (
        f"{group.dataset}, {group.name}: {group.first.examples} {_kind(group)}, "
        f"{100 * result['fraction_of_train']:.2f} % of the {result['num_train']:,} "
        "clips in the training split, "
        f"{group.num_bytes:,} bytes (1/{ratio:.3g} of the raw audio). "
        f"Test {group.first.metric} by {group.first.learner} "
        f"{mean_std(group.accuracies)} % over {count} seed{'s' * (count > 1)}{real}"
        f"{tested}." + " ".join(["", *warnings])
    )


def _tables(
    groups: Mapping[str, Sequence[Group]], runs: Sequence[Run]
) -> dict[str, Table]:
    """Returns the tables that have rows, by title; ``groups`` are by kind."""
    titled = {
        "Coresets": _coresets(groups["distill"]),
        "Coresets, every fold": _folds(
            grouped([run for run in runs if run.kind == "folds"])
        ),
        "Networks": _trainings(groups["train"]),
    }
    for (dataset, model), alike in by(groups["active"], _NETWORK).items():
        result = alike[0].first.result
        counts = [result["rounds"][0]["counted"], *result["budgets"].values()]
        curves = [group.curve for group in alike]
        table = learning_curves.table(curves, (), counts, result["num_train"])
        titled[f"Active learning, {dataset}, {model}"] = table
    titled["Unfinished runs"] = _unfinished(runs)
    return {title: table for title, table in titled.items() if table.rows}


def _coresets(groups: Sequence[Group]) -> Table:
    """Coresets: their sizes, and accuracies of kernel regression."""
    records = []
    for group in groups:
        result, start = group.first.result, ""
        per_class = tables.per_class(result)
        if (factor := result.get("factor", 1)) != 1:
            per_class += f" x {factor}"
        if result["start"] == "real":
            start = mean_std(group.scores("start_test_accuracy"))
        record = {
            "dataset": result["dataset"],
            "method": result["method"],
            "per class": per_class,
            "settings": ", ".join(group.settings),
            "share of train": f"{100 * result['fraction_of_train']:.2f} %",
            "bytes": f"{result['bytes']:,}",
            **_parts(result),
            "raw audio / bytes": f"{result['train_bytes'] / result['bytes']:.3g}",
            f"{metric_of(groups)} (%)": mean_std(group.accuracies),
            "real clips (%)": start,
            **tables.beside([run.result for run in group.runs]),
            "protocol": result["protocol"],
            "seeds": str(len(group.runs)),
            "steps": str(result["steps"]),
            "s": f"{group.seconds:.0f}",
        }
        records.append(record)
    return tables.from_records(records).without_empty_columns()


def _parts(result: dict[str, Any]) -> dict[str, str]:
    """Returns the bytes of images, labels and the file; none of earlier versions."""
    names = {
        "image_bytes": "image bytes",
        "label_bytes": "label bytes",
        "file_bytes": "file bytes",
    }
    return {title: f"{result[n]:,}" for n, title in names.items() if n in result}


def _trainings(groups: Sequence[Group]) -> Table:
    """Networks: their training sets and accuracies."""
    records = [
        {
            "dataset": group.dataset,
            "network": group.first.learner,
            "learns from": group.source,
            "settings": ", ".join(group.settings),
            "clips": f"{group.first.examples:,}",
            "share of train": f"{100 * group.first.result['fraction_of_train']:.2f} %",
            f"{metric_of(groups)} (%)": mean_std(group.accuracies),
            **tables.beside([run.result for run in group.runs]),
            "seeds": str(len(group.accuracies)),
            "s": f"{group.seconds:.0f}",
        }
        for group in groups
    ]
    return tables.from_records(records).without_empty_columns()


def _folds(groups: Sequence[Group]) -> Table:
    """Coresets of runs of every fold: accuracies over folds, one row per seed."""
    records = [
        {
            "dataset": run.dataset,
            "method": run.result["method"],
            "per class": tables.per_class(run.result),
            "settings": ", ".join((*group.settings, f"seed={run.seed}")),
            "folds": str(len(run.accuracies)),
            f"{metric_of(groups)} (%)": mean_std(run.accuracies),
            "real clips (%)": mean_std(
                [score_of(row, "start_test_accuracy") for row in run.result["folds"]]
            ),
            "s": f"{run.seconds:.0f}",
        }
        for group in groups
        for run in group.runs
    ]
    return tables.from_records(records)


def _unfinished(runs: Sequence[Run]) -> Table:
    """Runs without a result, with their last steps."""
    records = [
        {
            "run": run.path.name,
            "kind": run.kind,
            "dataset": run.title,
            "seed": str(run.config["seed"]),
            "last step": str(max((row["step"] for row in run.history), default=0)),
            "state": run.state,
        }
        for run in runs
        if not run.result
    ]
    return tables.from_records(records)


def _draw(groups: Mapping[str, Sequence[Group]], folder: Path) -> None:
    """Draws each dataset's distillations, and its learning curves with coresets."""
    for dataset, alike in by(groups["distill"], _DATASET).items():
        validated = {group.name: group.validated for group in alike if group.validated}
        if not validated:
            continue
        figure = figures.blank(8.0, 4.5)
        axes = figure.subplots()
        for i, (name, points) in enumerate(validated.items()):
            steps, accuracies = zip(*points, strict=True)
            percent, label = [100 * a for a in accuracies], figures.plain(name)
            marker = figures.MARKERS[i % len(figures.MARKERS)]
            axes.plot(steps, percent, marker=marker, ms=4, label=label)
        axes.set(xlabel="step", ylabel=f"validation {metric_of(alike)} (%)")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
        figures.save(figure, f"{dataset}: distillation", folder / f"{dataset}.png")
    on_coresets = [
        group
        for group in groups["train"]
        if group.coreset and group.first.result["learns_from"] == "coreset"
    ]
    for network, alike in by(groups["active"], _NETWORK).items():
        points = [
            Point(
                group.first.examples,
                group.accuracies,
                group.seconds,
                f"coreset by {group.coreset.split(', ')[0]}",
            )
            for group in on_coresets
            if _NETWORK(group) == network
        ]
        (dataset, model), metric = network, metric_of(alike)
        learning_curves.draw(
            [group.curve for group in alike],
            points,
            alike[0].first.result["num_train"],
            f"{dataset}, {model}: {metric} against labels",
            folder / f"{dataset}-{file_stem(model)}.png",
            metric=metric,
        )


def _origin(runs: Sequence[Run]) -> list[str]:
    """Returns data, licences and versions of the runs."""
    data, versions = [], []
    for run in runs:
        if run.result:
            version, licence = run.result["dataset_version"], run.result["licence"]
            origin = f"Data: {run.dataset} {version}. Licence: {licence}"
            counts = counts_in_words(run.result)
            data.append(". ".join(filter(None, (origin, counts))))
        if (file := run.path / "environment.json").exists():
            environment = read_json(file)
            revision = environment.get("revision")
            made_with = environment["audiodd_jax"]
            made_with += f" at {revision}" if revision else ""
            devices = ", ".join(dict.fromkeys(environment["devices"]))
            jax = environment["versions"]["jax"]
            versions.append(
                f"Made with audiodd_jax {made_with}, jax {jax} on {devices}"
            )
    return list(dict.fromkeys([*data, *versions]))
