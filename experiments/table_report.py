"""A table of coresets and active learning: its rows, its files and its figure."""

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
    """The rows that a table shall have.

    Attributes:
      methods: of distillation.
      acquisitions: acquisition functions.
      bought: shares of labels that RFAD distils from.
      seeds: of everything.
      other_norm: the network's second norm on coresets of DC, DSA and DM.
    """

    methods: tuple[str, ...]
    acquisitions: tuple[str, ...]
    bought: tuple[str, ...]
    seeds: tuple[int, ...]
    other_norm: str

    def coresets(self):
        """Title, method and labels of the rows that are coresets."""
        for method in self.methods:
            name = method.upper()
            if method == "rfad":
                kinds = (name, "teacher"), (f"{name}, hard labels", "hard")
            elif method in TRAINS_AS_REAL:
                kinds = ((name, "hard"),)
            else:
                kinds = (name, AS_REAL), (f"{name}, {self.other_norm} norm", "hard")
            for title, labels in kinds:
                yield title, method, labels
        if "rfad" in self.methods:
            yield "random clips, RFAD's labels", "random", "teacher"


def rows(outcomes, request):
    """The table's rows, in the source's order."""
    runs = outcomes.runs
    data, row = runs.data, lambda *of: _row(outcomes, request.seeds, *of)
    source = published_results.RESULTS.get((runs.model, runs.dataset))
    # Validation clips are held out here too: of every budget, and of everything.
    every = row("all clips", "all", data.train.labels.size, "everything")
    yield every._replace(published=source.everything if source else None)
    per_class = (f"{size}/class" for size in runs.sizes)
    for text in (*published_results.SHARES, *per_class):
        size = text.replace("%", " %").replace("/", " per ")
        for name in request.acquisitions:
            chosen = row(name, size, runs.count(text), "choice", name)
            yield _beside(chosen, name, text, source, runs)
    yield from _coresets(row, request, source, runs)
    bought = {
        key[:-1]
        for key in outcomes.results
        if key[0] == "bought" and key[-1] in request.seeds
    }
    share_and_size = lambda asked: (float(asked[2].rstrip("%")), -asked[3])
    for asked in sorted(bought, key=share_and_size):
        _, name, share, size = asked
        title = f"RFAD from {share.replace('%', ' %')} of the labels ({name})"
        yield row(title, f"{size} per class", size * data.num_classes, *asked)


def _row(outcomes, seeds, title, size, clips, *asked):
    """A row of the outcomes of all seeds that reached its number of clips."""
    found, reason = outcomes.of_seeds(seeds, *asked)
    found = [one for one in found if clips in one.accuracies]
    data = outcomes.runs.data
    raw = None
    if asked[0] in ("everything", "choice"):
        raw = round(data.train_bytes * clips / data.num_train)
    stored = next((one.stored for one in found if one.stored), raw)
    accuracies = tuple(one.accuracies[clips] for one in found)
    seconds = tuple(one.seconds for one in found)
    return Row(title, size, clips, stored, accuracies, seconds, reason)


def _coresets(row, request, source, runs):
    """The rows of coresets, with the source's numbers beside RFAD's."""
    for title, method, labels in request.coresets():
        for i, size in enumerate(runs.sizes):
            asked = ("coreset", method, size, labels)
            clips = size * runs.data.num_classes
            found = row(title, f"{size} per class", clips, *asked)
            if source and title == "RFAD" and i < len(source.distilled):
                found = found._replace(published=source.distilled[i])
                if i == 0:
                    label = published_results.LABELS[runs.dataset]
                    found = found._replace(published_label=label)
            yield found


def _beside(row, name, text, source, runs):
    """A function's row with the source's number, where it has one."""
    if not source or name not in source.chosen:
        return row
    shares = published_results.SHARES
    if text in shares:
        return row._replace(published=source.chosen[name][shares.index(text)])
    if text == f"{max(runs.sizes)}/class":
        label = published_results.LABELS[runs.dataset]
        return row._replace(published=source.fewest[name], published_label=label)
    return row


def write(outcomes, request):
    """Writes tables, sentences and the figure; returns the tables as Markdown."""
    runs, made_of = outcomes.runs, list(rows(outcomes, request))
    data, stem = runs.data, runs.place / runs.model
    sized = (data.num_train, data.num_classes, data.train_bytes)
    made = budget_table.table(made_of, *sized)
    tables.write(made, stem)
    short = budget_table.matrix(made_of, data.num_train)
    tables.write(short, stem.with_name(f"{stem.name}-short"))
    write_json(stem.with_suffix(".json"), [row._asdict() for row in made_of])
    recipe = runs.recipe(0).training
    verdict = (
        f"Every row trains {runs.model} for {recipe.steps:,} steps of "
        f"{recipe.batch_size} clips.\n"
        + budget_table.verdict(made_of, request.acquisitions, data.train_bytes)
    )
    write_atomically(stem.with_name(f"{stem.name}-verdict.md"), verdict + "\n")
    if any(row.accuracies for row in made_of):
        curves, points = series(made_of, request.acquisitions, runs.count)
        learning_curves.draw(
            curves,
            points,
            data.num_train,
            f"{data.name}, {runs.model}",
            stem.with_suffix(".png"),
            made_of[0].accuracies,
        )
    return "\n\n".join([tables.markdown(made), tables.markdown(short), verdict])


def series(made_of, acquisitions, count):
    """The figure's curves and points.

    Args:
      made_of: the table's rows.
      acquisitions: acquisition functions, whose rows are curves.
      count: gives the clips of a budget.
    """
    curves, points, chosen = [], [], {}
    for row in made_of:
        if not row.accuracies or row.size == "all":
            continue
        if row.learns_from in acquisitions:
            chosen.setdefault(row.learns_from, {})[row.clips] = row
            continue
        clips, name = row.clips, row.learns_from
        if name.startswith("RFAD from"):
            # By the labels that it took, not by its size.
            clips, name = count(f"{name.split()[2]}%"), "RFAD from bought labels"
        points.append(Point(clips, row.accuracies, np.mean(row.seconds), name))
    for name, at in chosen.items():
        counts = tuple(sorted(at))
        seeds = min(len(at[count].accuracies) for count in counts)
        accuracies = [at[count].accuracies[:seeds] for count in counts]
        seconds = at[counts[0]].seconds[0]
        curves.append(Curve(name, counts, np.array(accuracies).T, seconds))
    return curves, points
