"""The source's tables 1 and 2: coresets and active learning at equal budgets.

    python experiments/table.py --dataset=arabic_speech_commands \
        --data_dir=/data/arabic --model=convnet --seeds=3 --hours=8

One network learns from all training clips; from clips that acquisition functions chose,
at percentages of them and at the coresets' sizes; from coresets of several sizes and
methods, with a teacher's labels and with hard ones; from random clips with the same
labels; and from coresets of RFAD that were distilled from bought labels alone, those
that the best function had chosen. Tables (Markdown, CSV, LaTeX, JSON), sentences and a
figure are written under the network's name after each run; rows that were not run say
why. Finished runs are not repeated, interrupted ones resume.

Several calls may work at one table at the same time, each on its own device or cores
(``CUDA_VISIBLE_DEVICES=0``, ``taskset -c 0``): each leaves to the others what they are
running, and what any has found is in the tables of all.

``--hours`` is the time of this call: what is not expected to fit is left for the next
one, the further seeds first. ``--sizes`` chooses the amount of work: for two CPU cores
(fewer steps, maps of 32 x 64), the datasets' defaults, or the published sizes.

Networks on coresets of DC, DSA and DM have instance or group norm, since those coresets
have other statistics than real clips. Validation clips are nobody's budget: no label of
theirs is learnt from.
"""

import time
from logging import WARNING, getLogger
from pathlib import Path

import budget_table
import numpy as np
import published_results
from absl import app, flags, logging
from budget_table import Row
from contenders import CHANGES, Contenders, Outcome

from audiodd_jax.cli import common
from audiodd_jax.cli.main import explained
from audiodd_jax.config.names import ACQUISITIONS, METHODS
from audiodd_jax.report import learning_curves, tables
from audiodd_jax.report.learning_curves import Curve, Point
from audiodd_jax.runtime import multiprocess
from audiodd_jax.runtime.errors import InUseError, UserError
from audiodd_jax.runtime.files import read_json, write_atomically, write_json
from audiodd_jax.runtime.locks import exclusive

_DATASET = flags.DEFINE_string("dataset", "tones", "dataset")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "where the recordings lie")
_FOLD = flags.DEFINE_integer("fold", 0, "test fold (0: the last one)")
_MODEL = flags.DEFINE_enum("model", "convnet", ["convnet", "resnet18"], "network")
_PER_CLASS = flags.DEFINE_list(
    "samples_per_class", [], "sizes of the coresets (default: the source's)"
)
_METHODS = flags.DEFINE_list("methods", ["rfad", "dc", "dsa", "dm"], "of distillation")
_ACQUISITIONS = flags.DEFINE_list(
    "acquisitions",
    [name for name in ACQUISITIONS if name not in ("k_center", "badge")],
    "acquisition functions",
)
_BOUGHT = flags.DEFINE_list(
    "bought", ["20%", "40%", "60%"], "shares of labels that RFAD distils from"
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "seeds of everything", lower_bound=1)
_HOURS = flags.DEFINE_float(
    "hours", 0.0, "time of this call (0: as much as it takes)", lower_bound=0.0
)
_SIZES = flags.DEFINE_enum("sizes", "cpu", list(CHANGES), "of the work")
_STEPS = flags.DEFINE_integer(
    "training_steps",
    0,
    "of the network, in every row (0: those of --sizes)",
    lower_bound=0,
)
_WORKDIR = flags.DEFINE_string("workdir", "runs/table", "where the runs go")

for _flag, _known in ((_METHODS, METHODS), (_ACQUISITIONS, ACQUISITIONS)):
    flags.register_validator(
        _flag.name, set(_known).issuperset, f"must be among {', '.join(_known)}"
    )
flags.register_validator(
    _PER_CLASS.name,
    lambda sizes: all(size.isdecimal() and int(size) for size in sizes),
    "must be whole numbers above 0",
)
flags.register_validator(
    _BOUGHT.name,
    set(published_results.SHARES).issuperset,
    f"must be among {', '.join(published_results.SHARES)}",
)


def sizes():
    """Spectrograms per class of the coresets, largest first."""
    usual = (5, 3, 2) if _DATASET.value == "esc10" else (10, 5, 2)
    name = _DATASET.value.removesuffix("_mini").removeprefix("arabic_")
    asked = _PER_CLASS.value or published_results.SIZES.get(name, usual)
    return sorted({int(size) for size in asked}, reverse=True)


def contenders():
    """The runs that the flags ask for."""
    fold = f"-fold{_FOLD.value}" if _FOLD.value else ""
    return Contenders(
        _DATASET.value,
        _DATA_DIR.value,
        _FOLD.value,
        _MODEL.value,
        sizes(),
        _SIZES.value,
        Path(_WORKDIR.value) / f"{_DATASET.value}{fold}",
        _STEPS.value,
    )


class Found:
    """What the runs have found so far, by what they were asked."""

    def __init__(self, runs, hours=0.0):
        """Reads what earlier calls have found.

        Args:
          runs: the contenders.
          hours: time until which runs are begun; 0: no limit.
        """
        self.runs, self.results, self.reasons = runs, {}, {}
        self.end = time.monotonic() + 3600 * hours if hours else float("inf")
        self.elsewhere = set()
        self.file = runs.place / runs.model / "outcomes.json"
        self._read()

    def _read(self):
        """Adds what other calls have found since."""
        if not self.file.exists():
            return
        kept, asked = read_json(self.file), self.runs.settings
        if not isinstance(kept, dict) or {"settings", "outcomes"} - kept.keys():
            raise UserError(f"{self.file} is damaged, or of another version")
        if kept["settings"] != asked:
            raise UserError(
                f"{self.file} has results of other settings, {kept['settings']}, than "
                f"{asked}: choose another --workdir"
            )
        numbers = lambda at: {int(k): v for k, v in (at or {}).items()}
        for key, value in kept["outcomes"]:
            outcome = Outcome(*value)
            outcome = outcome._replace(
                accuracies=numbers(outcome.accuracies),
                validation=numbers(outcome.validation),
            )
            self.results.setdefault(tuple(key), outcome)

    def ask(self, name, *arguments):
        """Runs one thing; what cannot be run is noted, and the next one follows."""
        key = (name, *arguments)
        self._read()
        if key in self.results:
            return
        seconds = self._expected(key)
        left = self.end - time.monotonic()
        if seconds > left:
            time_of = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
            self.reasons[key] = f"not run: no time (about {time_of})"
            return
        try:
            self.results[key] = getattr(self.runs, name)(*arguments)
        except InUseError:
            self.elsewhere.add(key)
            self.reasons[key] = "not run: another call runs it"
        except UserError as error:
            self.reasons[key] = f"not run: {error}"
        except Exception as error:
            if not multiprocess.is_out_of_memory(error):
                raise
            self.reasons[key] = "not run: the device has not the memory"
        self.write()

    def _expected(self, key):
        """Seconds of the most similar run so far: the most arguments alike."""
        alike = lambda other: sum(a == b for a, b in zip(key, other, strict=True))
        known = [other for other in self.results if other[0] == key[0]]
        return self.results[max(known, key=alike)].seconds if known else 0.0

    def best_function(self, share):
        """The function whose network was best with a share, on validation clips.

        By the first seed, so that all seeds share a row; None while that is not known.
        """
        clips, at = self.runs.count(share), {}
        for name in _ACQUISITIONS.value:
            key = ("choice", name, 0)
            outcome = self.results.get(key)
            if outcome is None and key in self.elsewhere:
                return None
            if outcome and clips in (outcome.validation or {}):
                at[name] = outcome.validation[clips]
        return max(at, key=at.get) if at else None

    def of(self, name, *arguments):
        """The results of all seeds, and why there are none."""
        keys = [(name, *arguments, seed) for seed in range(_SEEDS.value)]
        reasons = [self.reasons[key] for key in keys if key in self.reasons]
        found = [self.results[key] for key in keys if key in self.results]
        return found, reasons[0] if reasons else "not run"

    def rows(self):
        """The table's rows, in the source's order."""
        data, source = (
            self.runs.data,
            published_results.RESULTS.get((self.runs.model, self.runs.dataset)),
        )
        raw = lambda clips: round(data.train_bytes * clips / data.num_train)
        # Validation clips are held out here too: of every budget, and of everything.
        everything = data.train.labels.size
        row = self._row("all clips", "all", everything, raw, "everything")
        yield row._replace(published=source.everything if source else None)
        shares = published_results.SHARES
        for text in (*shares, *(f"{size}/class" for size in sizes())):
            clips = self.runs.count(text)
            size = text.replace("%", " %").replace("/", " per ")
            for name in _ACQUISITIONS.value:
                row = self._row(name, size, clips, raw, "choice", name)
                yield self._beside(row, name, text, source)
        for title, method, labels in _coresets():
            for i, per_class in enumerate(sizes()):
                size, clips = f"{per_class} per class", per_class * data.num_classes
                asked = ("coreset", method, per_class, labels)
                row = self._row(title, size, clips, raw, *asked)
                if source and title == "RFAD" and i < len(source.distilled):
                    row = row._replace(published=source.distilled[i])
                    if i == 0:
                        label = published_results.LABELS[self.runs.dataset]
                        row = row._replace(published_label=label)
                yield row
        bought = {key[:-1] for key in self.results if key[0] == "bought"}
        share_and_size = lambda asked: (float(asked[2].rstrip("%")), -asked[3])
        for asked in sorted(bought, key=share_and_size):
            _, name, share, per_class = asked
            title = f"RFAD from {share.replace('%', ' %')} of the labels ({name})"
            size, clips = f"{per_class} per class", per_class * data.num_classes
            yield self._row(title, size, clips, raw, *asked)

    def _row(self, title, size, clips, raw, *asked):
        """A row of the outcomes of all seeds that reached its number of clips."""
        found, reason = self.of(*asked)
        found = [one for one in found if clips in one.accuracies]
        stored = next((one.stored for one in found if one.stored), raw(clips))
        accuracies = tuple(one.accuracies[clips] for one in found)
        seconds = tuple(one.seconds for one in found)
        return Row(title, size, clips, stored, accuracies, seconds, reason)

    def _beside(self, row, name, text, source):
        """A function's row with the source's number, where it has one."""
        if not source or name not in source.chosen:
            return row
        shares = published_results.SHARES
        if text in shares:
            return row._replace(published=source.chosen[name][shares.index(text)])
        if text == f"{max(sizes())}/class":
            label = published_results.LABELS[self.runs.dataset]
            return row._replace(published=source.fewest[name], published_label=label)
        return row

    def write(self):
        """Writes outcomes, tables, sentences and the figure; the tables as Markdown."""
        stem = self.runs.place / self.runs.model
        with exclusive(self.file.with_name("outcomes.lock"), "writing outcomes"):
            self._read()
            outcomes = [[list(k), list(v)] for k, v in self.results.items()]
            kept = {"settings": self.runs.settings, "outcomes": outcomes}
            write_json(self.file, kept)
            return self._tables(stem)

    def _tables(self, stem):
        data, rows = self.runs.data, list(self.rows())
        sized = (data.num_train, data.num_classes, data.train_bytes)
        made = budget_table.table(rows, *sized)
        tables.write(made, stem)
        short = budget_table.matrix(rows, data.num_train)
        tables.write(short, stem.with_name(f"{stem.name}-short"))
        write_json(stem.with_suffix(".json"), [row._asdict() for row in rows])
        recipe = self.runs.recipe(0).training
        verdict = (
            f"Every row trains {self.runs.model} for {recipe.steps:,} steps of "
            f"{recipe.batch_size} clips.\n"
            + budget_table.verdict(rows, _ACQUISITIONS.value, data.train_bytes)
        )
        write_atomically(stem.with_name(f"{stem.name}-verdict.md"), verdict + "\n")
        if any(row.accuracies for row in rows):
            curves, points = _series(rows, self.runs.count)
            title = f"{data.name}, {self.runs.model}"
            figure = stem.with_suffix(".png")
            everything = rows[0].accuracies
            learning_curves.draw(
                curves, points, data.num_train, title, figure, everything
            )
        return "\n\n".join([tables.markdown(made), tables.markdown(short), verdict])


def _coresets():
    """Title, method and labels of the rows that are coresets."""
    labels = {"rfad": (("RFAD", "teacher"), ("RFAD, hard labels", "hard"))}
    for method in _METHODS.value:
        for title, kind in labels.get(method, ((method.upper(), "hard"),)):
            yield title, method, kind
    if "rfad" in _METHODS.value:
        yield "random clips, RFAD's labels", "random", "teacher"


def _series(rows, count):
    """The figure's curves and points; ``count`` gives the clips of a budget."""
    curves, points, chosen = [], [], {}
    for row in rows:
        if not row.accuracies or row.size == "all":
            continue
        if row.learns_from in _ACQUISITIONS.value:
            chosen.setdefault(row.learns_from, {})[row.clips] = row
        elif row.learns_from.startswith("RFAD from"):
            # By the labels that it took, not by its size.
            taken = count(f"{row.learns_from.split()[2]}%")
            points.append(
                Point(
                    taken,
                    row.accuracies,
                    np.mean(row.seconds),
                    "RFAD from bought labels",
                )
            )
        else:
            seconds = sum(row.seconds) / len(row.seconds)
            points.append(Point(row.clips, row.accuracies, seconds, row.learns_from))
    for name, at in chosen.items():
        counts = tuple(sorted(at))
        seeds = min(len(at[count].accuracies) for count in counts)
        accuracies = [at[count].accuracies[:seeds] for count in counts]
        seconds = at[counts[0]].seconds[0]
        curves.append(Curve(name, counts, np.array(accuracies).T, seconds))
    return curves, points


def ask_all(found):
    """Asks for every row: a whole table by one seed, then by the next."""
    for seed in range(_SEEDS.value):
        found.ask("everything", seed)
        for _, method, labels in _coresets():
            for per_class in sizes():
                found.ask("coreset", method, per_class, labels, seed)
        for acquisition in _ACQUISITIONS.value:
            found.ask("choice", acquisition, seed)
        if "rfad" in _METHODS.value:
            for share in _BOUGHT.value:
                _ask_bought(found, share, seed)


def _ask_bought(found, share, seed):
    """The largest coreset that the first seed's labels by the best function allow."""
    if not (best := found.best_function(share)):
        return
    asked = ("bought", best, share)
    known = [*found.results, *found.elsewhere]
    first = [key[3] for key in known if key[:3] == asked and key[-1] == 0]
    for per_class in sizes():
        if first and per_class > first[0]:
            continue  # One size for all seeds, where another's labels allow more.
        key = (*asked, per_class, seed)
        found.ask(*key)
        # Fewer spectrograms only where the labels do not suffice for more.
        if key in found.results or key in found.elsewhere:
            return


def main(_):
    logging.set_verbosity(logging.WARNING)
    getLogger("audiodd_jax").setLevel(WARNING)  # no line per chunk of each run
    common.keep_compiled(None)
    runs = contenders()
    found = Found(runs, _HOURS.value)
    with common.continued(runs.place):
        ask_all(found)
    print(found.write())
    print(f"\ntables and figure: {runs.place / runs.model}.*")


if __name__ == "__main__":
    explained(lambda: app.run(main))
