"""The job of ``audiodd report``: tables, figures, sounds and a page, from runs."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from audiodd_jax.commands import recorded_training, report_gallery
from audiodd_jax.commands.report_gallery import Options
from audiodd_jax.config.names import file_stem
from audiodd_jax.coreset.file import load_coreset
from audiodd_jax.errors import UserError, named
from audiodd_jax.report import (
    class_tables,
    comparison,
    figures,
    html_page,
    learning_curves,
    run_charts,
    run_index,
    summary,
)
from audiodd_jax.report import tables as tables_lib
from audiodd_jax.report.html_page import Gallery, Titled
from audiodd_jax.report.learning_curves import Point
from audiodd_jax.report.run_index import Group, Run
from audiodd_jax.runtime import progress
from audiodd_jax.runtime.files import read_json, remove_unfinished, write_atomically
from audiodd_jax.runtime.locks import exclusive
from audiodd_jax.version import __version__

# Coresets in the summary.
_SENTENCES = 8
_NOTE = (
    "Scores are on the test split: mean ± sample standard deviation over seeds. "
    "Bytes are those of 32-bit images and labels, compared with the recordings as "
    "16-bit mono audio."
)


class Report(NamedTuple):
    """A written report.

    Attributes:
      page: the HTML file.
      runs: number of runs.
      unfinished: number of unfinished runs.
      galleries: of the coresets on the page.
      sounds: folder of each gallery.
      notes: what could not be shown, and why.
    """

    page: Path
    runs: int
    unfinished: int
    galleries: list[Gallery]
    sounds: list[Path]
    notes: list[str]


def report(
    places: Sequence[str | Path],
    out: str | Path,
    options: Options = report_gallery.DEFAULT,
    cache_dir: Path | None = None,
) -> Report:
    """Writes a report of all runs in some folders.

    ``index.html``, tables, figures and sounds.

    Args:
      places: run directories, or folders with runs at any depth.
      out: folder of the report; an earlier report is replaced.
      options: which coresets to show, and how.
      cache_dir: folder of downloads and features.

    Raises:
      UserError: no runs, a damaged file, or a bad option.
    """
    _check(options)
    runs = run_index.find([Path(place) for place in places])
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is not a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / ".report").exists():
        raise UserError(
            f"{out} is not empty and holds no report; choose another folder with --out"
        )
    # Not ``.lock``, which marks run directories.
    with exclusive(out / ".report", "writing a report there"), named(out):
        remove_unfinished(out)
        return _write(runs, out, options, cache_dir)


def _write(
    runs: Sequence[Run], out: Path, options: Options, cache_dir: Path | None
) -> Report:
    """Writes all parts of a report, the page last."""
    (out / "figures").mkdir(parents=True, exist_ok=True)
    kinds = lambda kind: [run for run in runs if run.kind == kind]
    distilled = sorted(run_index.grouped(kinds("distill")), key=_order)
    trained = run_index.grouped(kinds("train"), _origins(distilled))
    chosen = run_index.grouped(kinds("active"))
    folds = run_index.grouped(kinds("folds"))
    tables = _tables(distilled, trained, chosen, folds, runs)
    for titled in tables:
        tables_lib.write(titled.table, out / "tables" / tables_lib.stem(titled.title))
    with progress.waiting("drawing curves"):
        _figures(distilled, trained, chosen, out / "figures")
    lines = comparison.compare(distilled, trained, chosen)
    by_dataset = comparison.by_dataset(lines)
    numbers = {(line.dataset, line.name): line.number for line in reversed(lines)}
    galleries, folders, notes = [], [], []
    for group in _shown(distilled, options.galleries):
        number = numbers[group.first.result["dataset"], summary.name_of(group)]
        made, folder, note = report_gallery.make(
            group, number, out / "sounds", options, cache_dir
        )
        galleries.append(made)
        folders.append(folder)
        notes += note
    unfinished = sum(not run.result for run in runs)
    names = sorted({run.config["data"]["name"] for run in runs})
    content = html_page.Page(
        f"Coresets of {', '.join(names)}"
        if distilled
        else f"Runs on {', '.join(names)}",
        f"audiodd_jax {__version__}, {datetime.date.today().isoformat()}: "
        f"{len(runs)} run{'s' * (len(runs) != 1)}"
        + (f", {unfinished} unfinished" if unfinished else ""),
        _sentences(distilled),
        _NOTE,
        by_dataset,
        [c for item in by_dataset.items() for c in run_charts.draw(*item)],
        [t for item in by_dataset.items() for t in class_tables.by_class(*item)],
        class_tables.matrices(lines),
        galleries,
        tables,
        [*_origin(runs), *notes],
    )
    write_atomically(out / "index.html", html_page.render(content))
    return Report(out / "index.html", len(runs), unfinished, galleries, folders, notes)


def _sentences(distilled: Sequence[Group]) -> list[str]:
    """A sentence for each of the best coresets."""
    if not distilled:
        return ["No finished distillation is among these runs; see the tables."]
    lines = [summary.sentence(group) for group in _shown(distilled, _SENTENCES)]
    more = len(distilled) - len(lines)
    return lines + [f"{more} more are in the tables."] * (more > 0)


def _check(options: Options) -> None:
    for name, least in (("galleries", 0), ("per_class", 0), ("iterations", 0)):
        if getattr(options, name) < least:
            raise UserError(
                f"{name} must be at least {least}, not {getattr(options, name)}"
            )


def _order(group: Group) -> tuple[str, str, int]:
    result = group.first.result
    return result["dataset"], result["method"], result["samples_per_class"]


def _origins(distilled: Sequence[Group]) -> dict[str, str]:
    """Names of coresets, by the digests that trainings on them record."""
    found = {}
    for group in distilled:
        for run in group.runs:
            coreset = load_coreset(run.path / "coreset.npz")
            arrays, source = coreset.unpack(), recorded_training.coreset_source
            for name in ("coreset", "hard"):
                record = source(arrays, name, coreset.has_tags).record
                found[record["digest"]] = summary.name_of(group)
    return found


def _tables(
    distilled: Sequence[Group],
    trained: Sequence[Group],
    chosen: Sequence[Group],
    folds: Sequence[Group],
    runs: Sequence[Run],
) -> list[Titled]:
    """The tables that have rows."""
    found = [
        Titled("Coresets", summary.coresets(distilled)),
        Titled("Coresets, every fold", summary.folds(folds)),
        Titled("Networks", summary.trainings(trained)),
    ]
    for (dataset, model), groups in _by_network(chosen).items():
        first = groups[0].first.result
        counts = [first["rounds"][0]["counted"], *first["budgets"].values()]
        curves = [summary.curve(group) for group in groups]
        table = learning_curves.cells(curves, (), counts, first["num_train"])
        found.append(Titled(f"Active learning, {dataset}, {model}", table))
    found.append(Titled("Unfinished runs", summary.unfinished(runs)))
    return [titled for titled in found if titled.table.rows]


def _by_network(groups: Sequence[Group]) -> dict[tuple[str, str], list[Group]]:
    found: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        result = group.first.result
        found.setdefault((result["dataset"], result["model"]), []).append(group)
    return found


def _figures(
    distilled: Sequence[Group],
    trained: Sequence[Group],
    chosen: Sequence[Group],
    folder: Path,
) -> None:
    """Draws the curves as pictures for documents."""
    for dataset in dict.fromkeys(group.first.result["dataset"] for group in distilled):
        histories = {
            summary.name_of(group): [run.history for run in group.runs]
            for group in distilled
            if group.first.result["dataset"] == dataset
            and any(len(run.history) > 1 for run in group.runs)
        }
        if histories:
            title, path = f"{dataset}: distillation", folder / f"{dataset}.png"
            of_dataset = (g for g in distilled if g.first.result["dataset"] == dataset)
            metric = tables_lib.metric_of(group.first.result for group in of_dataset)
            figures.progress(histories, title, path, metric)
    on_coresets = [group for group in trained if group.origin and _is_coreset(group)]
    points = _by_network(on_coresets)
    for network, groups in _by_network(chosen).items():
        dataset, model = network
        metric = tables_lib.metric_of(group.first.result for group in groups)
        title = f"{dataset}, {model}: {metric} against labels"
        path = folder / f"{dataset}-{file_stem(model)}.png"
        learning_curves.draw(
            [summary.curve(group) for group in groups],
            [_point(group) for group in points.get(network, ())],
            groups[0].first.result["num_train"],
            title,
            path,
            metric=metric,
        )


def _is_coreset(group: Group) -> bool:
    return group.first.result["learns_from"] == "coreset"


def _point(group: Group) -> Point:
    """A network on a method's coresets of one size, for the figure."""
    accuracies = [a for run in group.runs for a in run.result["test_accuracies"]]
    method = group.origin.split(", ")[0]
    return Point(
        group.first.result["num_samples"],
        tuple(accuracies),
        group.mean("wall_seconds"),
        f"coreset by {method}",
    )


def _shown(distilled: Sequence[Group], count: int) -> list[Group]:
    """The coresets to show: the best per dataset and method, then the others."""
    ranked = sorted(distilled, key=lambda group: -group.mean("test_accuracy"))
    seen, first, later = set(), [], []
    for group in ranked:
        result = group.first.result
        key = result["dataset"], result["method"]
        (later if key in seen else first).append(group)
        seen.add(key)
    return [*first, *later][:count]


def _origin(runs: Sequence[Run]) -> list[str]:
    """Data, licences and versions of the runs."""
    lines = []
    for run in runs:
        if run.result:
            version, licence = run.result["dataset_version"], run.result["licence"]
            line = f"Data: {run.result['dataset']} {version}. Licence: {licence}"
            if line not in lines:
                lines.append(line)
    for run in runs:
        file = run.path / "environment.json"
        if file.exists():
            there = read_json(file)
            revision = f" at {there['revision']}" if there.get("revision") else ""
            devices = ", ".join(dict.fromkeys(there["devices"]))
            line = (
                f"Made with audiodd_jax {there['audiodd_jax']}{revision}, jax "
                f"{there['versions']['jax']} on {devices}"
            )
            if line not in lines:
                lines.append(line)
    return lines
