"""Writes a report: tables, figures, sounds and a page, from groups of runs."""

import datetime
from collections.abc import Sequence
from pathlib import Path

from audiodd_jax.config.names import file_stem
from audiodd_jax.report import (
    comparison,
    figures,
    gallery,
    html_page,
    learning_curves,
    run_charts,
    summary,
    tables,
)
from audiodd_jax.report.gallery import Options, Shown
from audiodd_jax.report.groups import Group, by, grouped, metric_of
from audiodd_jax.report.html_page import Titled
from audiodd_jax.report.learning_curves import Point
from audiodd_jax.report.runs import Run
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


def write(runs: Sequence[Run], out: Path, options: Options) -> list[Shown]:
    """Writes all parts of a report, the page last; returns the galleries on it."""
    groups = comparison.compare(runs)
    of_kind = lambda kind: [group for group in groups if group.first.kind == kind]
    distilled, trained, chosen = map(of_kind, ("distill", "train", "active"))
    titled_tables = _tables(distilled, trained, chosen, runs)
    for title, table in titled_tables:
        tables.write(table, out / "tables" / tables.stem(title))
    (out / "figures").mkdir(parents=True, exist_ok=True)
    with progress.waiting("drawing curves"):
        _progress_figures(distilled, out / "figures")
        _curve_figures(trained, chosen, out / "figures")
    shown = [
        gallery.make(group, out / "sounds", options)
        for group in _best(distilled, options.galleries)
    ]
    by_dataset = by(groups, _dataset)
    names = ", ".join(sorted({run.config["data"]["name"] for run in runs}))
    content = html_page.Page(
        title=f"Coresets of {names}" if distilled else f"Runs on {names}",
        made=_made(runs),
        summary=_sentences(distilled),
        note=_NOTE,
        comparison=by_dataset,
        charts=[c for same in by_dataset.values() for c in run_charts.draw(same)],
        by_class=comparison.class_tables(groups),
        matrices=comparison.matrices(groups),
        galleries=[made.gallery for made in shown],
        tables=titled_tables,
        origin=_origin(runs) + [note for made in shown for note in made.notes],
    )
    write_atomically(out / "index.html", html_page.render(content))
    return shown


def _made(runs: Sequence[Run]) -> str:
    """Returns version, date and number of runs."""
    unfinished = sum(not run.result for run in runs)
    text = f"audiodd_jax {__version__}, {datetime.date.today().isoformat()}: "
    text += f"{len(runs)} run{'s' * (len(runs) != 1)}"
    return text + f", {unfinished} unfinished" * (unfinished > 0)


def _sentences(distilled: Sequence[Group]) -> list[str]:
    """Returns a sentence for each of the best coresets."""
    if not distilled:
        return ["None of these runs is a finished distillation; see the tables."]
    sentences = [summary.sentence(group) for group in _best(distilled, _SENTENCES)]
    more = len(distilled) - len(sentences)
    return sentences + [f"The tables list {more} more."] * (more > 0)


def _best(distilled: Sequence[Group], count: int) -> list[Group]:
    """Returns the best coreset per dataset and method, followed by the others."""
    ranked = sorted(distilled, key=lambda group: -group.mean)
    best = {_method(group): group for group in reversed(ranked)}
    return sorted(ranked, key=lambda group: group is not best[_method(group)])[:count]


def _method(group: Group) -> tuple[str, str]:
    return group.dataset, group.first.result["method"]


def _tables(
    distilled: Sequence[Group],
    trained: Sequence[Group],
    chosen: Sequence[Group],
    runs: Sequence[Run],
) -> list[Titled]:
    """Returns the tables that have rows."""
    folds = grouped([run for run in runs if run.kind == "folds"])
    titled = [
        Titled("Coresets", summary.coresets(distilled)),
        Titled("Coresets, every fold", summary.folds(folds)),
        Titled("Networks", summary.trainings(trained)),
    ]
    for (dataset, model), alike in by(chosen, _network).items():
        result = alike[0].first.result
        counts = [result["rounds"][0]["counted"], *result["budgets"].values()]
        curves = [group.curve for group in alike]
        table = learning_curves.table(curves, (), counts, result["num_train"])
        titled.append(Titled(f"Active learning, {dataset}, {model}", table))
    titled.append(Titled("Unfinished runs", summary.unfinished(runs)))
    return [item for item in titled if item.table.rows]


def _dataset(group: Group) -> str:
    return group.dataset


def _network(group: Group) -> tuple[str, str]:
    return group.dataset, group.first.learner


def _progress_figures(distilled: Sequence[Group], folder: Path) -> None:
    """Draws the validation accuracy of each dataset's distillations."""
    for dataset, groups in by(distilled, _dataset).items():
        validated = {group.name: group.validated for group in groups if group.validated}
        if validated:
            title, path = f"{dataset}: distillation", folder / f"{dataset}.png"
            figures.progress(validated, title, path, metric_of(groups))


def _curve_figures(
    trained: Sequence[Group], chosen: Sequence[Group], folder: Path
) -> None:
    """Draws the learning curves of each dataset and network, with coresets."""
    on_coresets = by(
        [
            group
            for group in trained
            if group.coreset and group.first.result["learns_from"] == "coreset"
        ],
        _network,
    )
    for network, alike in by(chosen, _network).items():
        dataset, model = network
        metric = metric_of(alike)
        learning_curves.draw(
            [group.curve for group in alike],
            [_point(group) for group in on_coresets.get(network, ())],
            alike[0].first.result["num_train"],
            f"{dataset}, {model}: {metric} against labels",
            folder / f"{dataset}-{file_stem(model)}.png",
            metric=metric,
        )


def _point(group: Group) -> Point:
    """Returns a network on one method's coresets of one size, for the figure."""
    name = f"coreset by {group.coreset.split(', ')[0]}"
    return Point(group.first.examples, group.accuracies, group.seconds, name)


def _origin(runs: Sequence[Run]) -> list[str]:
    """Returns data, licences and versions of the runs."""
    data, versions = [], []
    for run in runs:
        if run.result:
            version, licence = run.result["dataset_version"], run.result["licence"]
            data.append(f"Data: {run.dataset} {version}. Licence: {licence}")
        if (run.path / "environment.json").exists():
            versions.append(_version(run.path / "environment.json"))
    return list(dict.fromkeys([*data, *versions]))


def _version(file: Path) -> str:
    environment = read_json(file)
    revision = environment.get("revision")
    made_with = environment["audiodd_jax"] + (f" at {revision}" if revision else "")
    devices = ", ".join(dict.fromkeys(environment["devices"]))
    jax = environment["versions"]["jax"]
    return f"Made with audiodd_jax {made_with}, jax {jax} on {devices}"
