"""Writes a report: tables, figures, sounds and a page, from groups of runs."""

import datetime
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import jinja2

from audiodd_jax.config.names import file_stem
from audiodd_jax.report import (
    charts,
    figures,
    gallery,
    learning_curves,
    summary,
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
from audiodd_jax.report.tables import Table
from audiodd_jax.runtime import progress
from audiodd_jax.runtime.files import read_json, write_atomically
from audiodd_jax.version import __version__

# Most coresets in the summary.
_SENTENCES = 8
_NOTE = (
    "Scores are on the test split: mean ± sample standard deviation over seeds. "
    "Bytes count images and labels as 32-bit numbers; they are compared with the "
    "recordings as 16-bit mono audio."
)
# Keys of groups.
_DATASET = attrgetter("dataset")
_NETWORK = attrgetter("dataset", "first.learner")


def write(runs: Sequence[Run], out: Path, options: Options) -> list[Gallery]:
    """Writes all parts of a report, the page last; returns the galleries on it."""
    groups = compare(runs)
    of_kind = lambda kind: [group for group in groups if group.first.kind == kind]
    distilled, trained, chosen = map(of_kind, ("distill", "train", "active"))
    titled = _tables(distilled, trained, chosen, runs)
    for title, table in titled.items():
        tables.write(table, out / "tables" / tables.stem(title))
    (out / "figures").mkdir(parents=True, exist_ok=True)
    with progress.waiting("drawing curves"):
        _draw(distilled, trained, chosen, out / "figures")
    galleries = [
        gallery.make(group, out / "sounds", options)
        for group in _best(distilled, options.galleries)
    ]
    names = ", ".join(sorted({run.config["data"]["name"] for run in runs}))
    unfinished = sum(not run.result for run in runs)
    made = f"audiodd_jax {__version__}, {datetime.date.today().isoformat()}: "
    made += f"{len(runs)} run{'s' * (len(runs) != 1)}"
    sentences = [summary.sentence(group) for group in _best(distilled, _SENTENCES)]
    if more := len(distilled) - len(sentences):
        sentences.append(f"The tables list {more} more.")
    if not distilled:
        sentences = ["None of these runs is a finished distillation; see the tables."]
    content = render(
        groups,
        galleries,
        titled,
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
    **texts: Any,
) -> str:
    """Renders the page as HTML with all text escaped; empty parts are left out.

    ``texts`` are the ``title``, what the page was ``made`` with, a ``summary`` and the
    ``origin`` of the runs.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("audiodd_jax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["mean_std"] = tables.mean_std
    environment.filters["percent"] = _percent
    by_dataset, by_class = by(groups, _DATASET), class_tables(groups)
    # The classes that the page can be filtered by.
    names = [name for same in by_class for name in same[0].classes.class_names]
    names += [sides[0].title for item in galleries for sides in item.cards]
    return environment.get_template("page.html").render(
        note=_NOTE,
        comparison=by_dataset,
        charts=[c for same in by_dataset.values() for c in charts.draw(same)],
        size=charts,
        by_class=by_class,
        matrices=matrices(groups),
        galleries=galleries,
        tables=titled_tables,
        class_names=list(dict.fromkeys(names)),
        **texts,
    )


def _percent(share: float) -> str:
    """Returns a share in whole percent; small ones are not shown as 0."""
    return "<1" if 0 < share < 0.005 else f"{100 * share:.0f}"


def _best(distilled: Sequence[Group], count: int) -> list[Group]:
    """Returns the best coreset per dataset and method, followed by the others."""
    ranked = sorted(distilled, key=lambda group: -group.mean)
    method = lambda group: (group.dataset, group.first.result["method"])
    best = {method(group): group for group in reversed(ranked)}
    return sorted(ranked, key=lambda group: group is not best[method(group)])[:count]


def _tables(
    distilled: Sequence[Group],
    trained: Sequence[Group],
    chosen: Sequence[Group],
    runs: Sequence[Run],
) -> dict[str, Table]:
    """Returns the tables that have rows, by title."""
    titled = {
        "Coresets": summary.coresets(distilled),
        "Coresets, every fold": summary.folds(
            grouped([run for run in runs if run.kind == "folds"])
        ),
        "Networks": summary.trainings(trained),
    }
    for (dataset, model), alike in by(chosen, _NETWORK).items():
        result = alike[0].first.result
        counts = [result["rounds"][0]["counted"], *result["budgets"].values()]
        curves = [group.curve for group in alike]
        table = learning_curves.table(curves, (), counts, result["num_train"])
        titled[f"Active learning, {dataset}, {model}"] = table
    titled["Unfinished runs"] = summary.unfinished(runs)
    return {title: table for title, table in titled.items() if table.rows}


def _draw(
    distilled: Sequence[Group],
    trained: Sequence[Group],
    chosen: Sequence[Group],
    folder: Path,
) -> None:
    """Draws each dataset's distillations, and its learning curves with coresets."""
    for dataset, groups in by(distilled, _DATASET).items():
        validated = {group.name: group.validated for group in groups if group.validated}
        if validated:
            title, path = f"{dataset}: distillation", folder / f"{dataset}.png"
            figures.progress(validated, title, path, metric_of(groups))
    on_coresets = [
        group
        for group in trained
        if group.coreset and group.first.result["learns_from"] == "coreset"
    ]
    for network, alike in by(chosen, _NETWORK).items():
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
            data.append(f"Data: {run.dataset} {version}. Licence: {licence}")
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
