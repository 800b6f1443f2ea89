"""Rows, files and figure of the table of coresets and active learning."""

import functools
from typing import NamedTuple

import budget_table
import numpy as np
import published_results
from budget_table import Row
from contenders import AS_REAL, TRAINS_AS_REAL

from audiodd_jax.report import learning_curves, tables
from audiodd_jax.report.learning_curves import Curve, Point
from audiodd_jax.runtime.files import write_atomically, write_json


class Request(NamedTuple):
    """The rows of a table.

    Attributes:
      bought: Shares of the labels from which RFAD distils.
      other_norm: The network's second norm on coresets of DC, DSA and DM.
    """

    methods: tuple[str, ...]
    acquisitions: tuple[str, ...]
    bought: tuple[str, ...]
    seeds: tuple[int, ...]
    other_norm: str

    def coresets(self):
        """Yields title, method and labels of each row with a coreset."""
        for method in self.methods:
            name = method.upper()
            if method == "rfad":
                kinds = (name, "teacher"), (f"{name}, hard labels", "hard")
            elif method == "aligned":
                kinds = (("RFAD, aligned", "teacher"),)
            elif method in TRAINS_AS_REAL:
                kinds = ((name, "hard"),)
            else:
                kinds = (name, AS_REAL), (f"{name}, {self.other_norm} norm", "hard")
            for title, labels in kinds:
                yield title, method, labels
        if {"rfad", "aligned"}.intersection(self.methods):
            yield "random clips, RFAD's labels", "random", "teacher"

    def keys(self, sizes, seed):
        """Yields the keys of a seed's runs as ``Outcomes`` has them, in their order."""
        yield "everything", seed
        for _, method, labels in self.coresets():
            for per_class in sizes:
                yield "coreset", method, per_class, labels, seed
        for acquisition in self.acquisitions:
            yield "choice", acquisition, seed


def rows(outcomes, request):
    """Yields the table's rows in the order of the published tables."""
    runs = outcomes.runs
    data, row = runs.data, functools.partial(_row, outcomes, request.seeds)
    source = published_results.RESULTS.get((runs.model, runs.dataset))
    # Validation clips are held out of every row, including the one of all clips.
    every = row("all clips", "all", data.train.labels.size, "everything")
    yield every._replace(published=source.everything if source else None)
    per_class = (f"{size}/class" for size in runs.sizes)
    for text in (*runs.shares, *per_class):
        size = text.replace("%", " %").replace("/", " per ")
        for name in request.acquisitions:
            chosen = row(name, size, runs.count(text), "choice", name)
            yield _with_published(chosen, name, text, source, runs)
    yield from _coresets(row, request, source, runs)
    bought = {
        key[:-1]
        for key in outcomes.results
        if key[0] == "bought" and key[-1] in request.seeds
    }
    share_and_size = lambda key: (float(key[2].rstrip("%")), -key[3])
    for key in sorted(bought, key=share_and_size):
        _, name, share, size = key
        title = f"RFAD from {share.replace('%', ' %')} of the labels ({name})"
        yield row(title, f"{size} per class", size * data.num_classes, *key)


def _row(outcomes, seeds, title, size, clips, *key):
    """Returns the row of all seeds that reached its number of clips."""
    results, reason = outcomes.of_seeds(seeds, *key)
    results = [result for result in results if clips in result.accuracies]
    data = outcomes.runs.data
    raw = None
    if key[0] in ("everything", "choice"):
        raw = round(data.train_bytes * clips / data.num_train)
    stored = next((result.stored for result in results if result.stored), raw)
    accuracies = tuple(result.accuracies[clips] for result in results)
    seconds = tuple(result.seconds for result in results)
    return Row(title, size, clips, stored, accuracies, seconds, reason)


def _coresets(row, request, source, runs):
    """Yields the rows of coresets, with published numbers for RFAD."""
    for title, method, labels in request.coresets():
        for size in runs.sizes:
            key = ("coreset", method, size, labels)
            clips = size * runs.data.num_classes
            filled = row(title, f"{size} per class", clips, *key)
            published = published_results.SIZES.get(runs.dataset, ())
            if source and title == "RFAD" and size in published:
                value = source.distilled[published.index(size)]
                filled = filled._replace(published=value)
                if size == published[0]:
                    label = published_results.LABELS[runs.dataset]
                    filled = filled._replace(published_label=label)
            yield filled


def _with_published(row, name, text, source, runs):
    """Adds the published number to a function's row."""
    if not source or name not in source.chosen:
        return row
    shares = published_results.SHARES
    if text in shares:
        return row._replace(published=source.chosen[name][shares.index(text)])
    if text == f"{published_results.SIZES[runs.dataset][0]}/class":
        label = published_results.LABELS[runs.dataset]
        return row._replace(published=source.fewest[name], published_label=label)
    return row


def write(outcomes, request):
    """Writes tables, summary and figure; returns the tables as Markdown."""
    runs, table_rows = outcomes.runs, list(rows(outcomes, request))
    data, stem = runs.data, runs.folder / runs.model
    sized = (data.num_train, data.num_classes, data.train_bytes)
    full = budget_table.table(table_rows, *sized)
    tables.write(full, stem)
    short = budget_table.matrix(table_rows, data.num_train)
    tables.write(short, stem.with_name(f"{stem.name}-short"))
    write_json(stem.with_suffix(".json"), [row._asdict() for row in table_rows])
    recipe = runs.recipe(0).training
    most = "at most " if recipe.patience else ""
    verdict = (
        f"Every row trains {runs.model} for {most}{recipe.steps:,} steps of "
        f"{recipe.batch_size} clips.\n"
        + budget_table.verdict(table_rows, request.acquisitions, data.train_bytes)
    )
    write_atomically(stem.with_name(f"{stem.name}-verdict.md"), verdict + "\n")
    if any(row.accuracies for row in table_rows):
        curves, points = series(table_rows, request.acquisitions, runs.count)
        learning_curves.draw(
            curves,
            points,
            data.num_train,
            f"{data.name}, {runs.model}",
            stem.with_suffix(".png"),
            table_rows[0].accuracies,
        )
    return "\n\n".join([tables.markdown(full), tables.markdown(short), verdict])


def series(table_rows, acquisitions, count):
    """Returns the figure's curves, one per acquisition function, and its points.

    Args:
      count: Converts a budget to a number of clips.
    """
    curves, points, chosen = [], [], {}
    for row in table_rows:
        if not row.accuracies or row.size == "all":
            continue
        if row.learns_from in acquisitions:
            chosen.setdefault(row.learns_from, {})[row.clips] = row
            continue
        clips, name = row.clips, row.learns_from
        if name.startswith("RFAD from"):
            # Plotted at the number of labels that it needed, not at its own size.
            clips, name = count(f"{name.split()[2]}%"), "RFAD from bought labels"
        points.append(Point(clips, row.accuracies, np.mean(row.seconds), name))
    for name, at in chosen.items():
        counts = tuple(sorted(at))
        seeds = min(len(at[count].accuracies) for count in counts)
        accuracies = [at[count].accuracies[:seeds] for count in counts]
        seconds = at[counts[0]].seconds[0]
        curves.append(Curve(name, counts, np.array(accuracies).T, seconds))
    return curves, points
