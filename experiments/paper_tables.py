"""The source's tables 1 and 2: coresets and active learning at equal budgets.

    python experiments/paper_tables.py --dataset=spoken_digit --data_dir=/data/fsdd \
        --model=convnet --seeds=3

One network learns from all training clips; from clips that acquisition functions chose,
at percentages of them and at the coresets' sizes; and from coresets of several sizes
and methods. Tables (Markdown, CSV, LaTeX, JSON) and a figure are written under the
network's name after each run; rows that were not run say so. Finished runs are not
repeated, interrupted ones resume. ``--sizes`` chooses the amount of work: for two CPU
cores (fewer steps, maps of 32 x 64), the datasets' defaults, or the published sizes.

RFAD distils by the preset ``transfer``, which is for networks. Networks on coresets of
DC and DSA have instance or group norm, since those coresets have other statistics than
real clips. Validation clips are nobody's budget: no label of theirs is learnt from.
"""

import functools
from pathlib import Path

import budget_table
import numpy as np
import published_results
from absl import app, flags, logging
from budget_table import Row

import audiodd_jax
from audiodd_jax.active_learning import budgets
from audiodd_jax.cli import common
from audiodd_jax.config import fields, presets
from audiodd_jax.config.names import REGRESSION, SELECTION
from audiodd_jax.jobs import active, recorded_training
from audiodd_jax.report import learning_curves, tables
from audiodd_jax.report.learning_curves import Curve, Point
from audiodd_jax.runtime import multiprocess
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.runtime.files import write_json
from audiodd_jax.selection import subsets

_DATASET = flags.DEFINE_string("dataset", "tones", "dataset")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "where the recordings lie")
_MODEL = flags.DEFINE_enum("model", "convnet", ["convnet", "resnet18"], "network")
_PER_CLASS = flags.DEFINE_list(
    "samples_per_class", [], "coreset sizes, largest first (default: the source's)"
)
_METHODS = flags.DEFINE_list("methods", ["rfad", "dc", "dsa"], "of distillation")
_ACQUISITIONS = flags.DEFINE_list(
    "acquisitions",
    ["max_entropy", "variation_ratios", "bald", "random"],
    "acquisition functions",
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "seeds of everything")
_SIZES = flags.DEFINE_enum("sizes", "cpu", ["cpu", "default", "source"], "of the work")
_WORKDIR = flags.DEFINE_string("workdir", "runs/table", "where the runs go")

# Changes over the datasets' and networks' own settings: of everything, of a method's
# distillation, of a network's training.
_SMALL_MAPS = {"features.n_mels": 32, "features.frames": 64, "evaluation.seeds": 1}
_CHANGES = {
    "cpu": {
        "all": _SMALL_MAPS,
        "rfad": {"loop.steps": 200},
        "dc": {"loop.steps": 60},
        "dsa": {"loop.steps": 60},
        "convnet": {"training.steps": 100},
        "resnet18": {"training.steps": 60, "training.batch_size": 64},
    },
    "default": {},
    "source": {"all": presets.PRESETS["source"]},
}
_NORMS = {"convnet": "instance", "resnet18": "group"}
_TRAINS_AS_REAL = ("rfad", *SELECTION)


def sizes():
    """Spectrograms per class of the coresets, largest first."""
    usual = (5, 3, 2) if _DATASET.value == "esc10" else (10, 5, 2)
    return [
        int(size)
        for size in _PER_CLASS.value
        or published_results.SIZES.get(_DATASET.value.removesuffix("_mini"), usual)
    ]


# Without a teacher's labels, which the other rows do not have either.
_FOR_NETWORKS = {
    **presets.PRESETS["transfer"],
    "teacher.networks": 0,
    "coreset.views": 0,
}


def base(seed, method="rfad", per_class=None):
    """The configuration of a seed, and of a method's distillation."""
    changes = _CHANGES[_SIZES.value]
    config = audiodd_jax.for_dataset(
        _DATASET.value, method=method, seed=seed, data__data_dir=_DATA_DIR.value
    )
    own = _FOR_NETWORKS if method in REGRESSION else {}
    size = {"coreset.samples_per_class": per_class} if per_class else {}
    parts = [changes.get("all", {}), changes.get(method, {}), own, size]
    return fields.replace(config, {k: v for part in parts for k, v in part.items()})


def recipe(seed, method=""):
    """How the network is trained, on real clips or on a method's coreset."""
    changes = _CHANGES[_SIZES.value].get(_MODEL.value, {})
    norm = (
        {} if method in ("", *_TRAINS_AS_REAL) else {"model.norm": _NORMS[_MODEL.value]}
    )
    config = presets.for_model(base(seed), _MODEL.value, training__seeds=1)
    return fields.replace(config, {**changes, **norm})


def place():
    return Path(_WORKDIR.value) / _DATASET.value


@functools.cache
def loaded():
    """The dataset, with one preprocessing for all."""
    return audiodd_jax.prepare(base(0))


def of_everything(seed):
    """Accuracy and seconds of the network on all training clips."""
    source = recorded_training.subset_source(subsets.Subset(), None, loaded(), seed)
    folder = place() / _MODEL.value / f"all-seed{seed}"
    trained = recorded_training.train(recipe(seed), loaded(), source, folder)
    return trained.scores.mean, trained.result["wall_seconds"]


def of_coreset(method, per_class, seed):
    """Accuracy of the network on a method's coreset, and seconds of both runs."""
    folder = place() / "coresets" / f"{method}-{per_class}-seed{seed}"
    run = audiodd_jax.distill(base(seed, method, per_class), folder)
    trained = recorded_training.train(
        recipe(seed, method),
        loaded(),
        recorded_training.coreset_source(run.coreset.unfolded()),
        place() / _MODEL.value / f"{method}-{per_class}-seed{seed}",
    )
    seconds = run.result["wall_seconds"] + trained.result["wall_seconds"]
    return trained.scores.mean, seconds, run.result["bytes"]


@functools.cache
def ladder():
    """Budgets of active learning in rising order: the coresets' sizes, and shares."""
    count = lambda text: budgets.clips(text, loaded().num_train, loaded().num_classes)
    texts = [f"{size}/class" for size in sizes()] + list(published_results.SHARES)
    found = {count(text): text for text in texts}
    return tuple(found[clips] for clips in sorted(found))


def of_choice(acquisition, seed):
    """Accuracies by number of clips that an acquisition function chose, and seconds."""
    config = fields.replace(
        recipe(seed),
        {
            **presets.ACTIVE_DEFAULTS,
            "active.acquisition": acquisition,
            "active.budgets": ladder(),
            "active.initial": f"{max(1, min(sizes()) // 2)}/class",
        },
    )
    folder = place() / _MODEL.value / f"{acquisition}-seed{seed}"
    result = active.learn(config, loaded(), folder)
    at = {row["counted"]: row["test_accuracy"] for row in result["rounds"]}
    return at, result["wall_seconds"]


class Found:
    """What the runs have found so far, by what they were asked."""

    def __init__(self):
        self.results = {}
        self.reasons = {}

    def ask(self, function, *arguments):
        """Runs one thing; what cannot be run is noted, and the next one follows."""
        key = (function.__name__, *arguments)
        try:
            self.results[key] = function(*arguments)
        except UserError as error:
            self.reasons[key] = f"not run: {error}"
        except Exception as error:
            if not multiprocess.is_out_of_memory(error):
                raise
            self.reasons[key] = "not run: the device has not the memory"
        self.write()

    def of(self, function, *arguments):
        """The results of all seeds, and why there are none."""
        keys = [(function.__name__, *arguments, k) for k in range(_SEEDS.value)]
        reasons = [self.reasons[key] for key in keys if key in self.reasons]
        found = [self.results[key] for key in keys if key in self.results]
        return found, reasons[0] if reasons else "not run"

    def rows(self):
        """The table's rows, in the source's order."""
        data, source = (
            loaded(),
            published_results.RESULTS.get((_MODEL.value, _DATASET.value)),
        )
        label = published_results.LABELS.get(_DATASET.value, "")
        raw = lambda clips: round(data.train_bytes * clips / data.num_train)
        count = lambda text: budgets.clips(text, data.num_train, data.num_classes)
        found, reason = self.of(of_everything)
        # Validation clips are held out here too: of every budget, and of everything.
        everything = data.train.labels.size
        row = _row("all clips", "all", everything, raw(everything), found, reason)
        yield row._replace(published=source.everything if source else None)
        for text in (*published_results.SHARES, *(f"{size}/class" for size in sizes())):
            clips = count(text)
            for name in _ACQUISITIONS.value:
                found, reason = self.of(of_choice, name)
                found = [(at[clips], s) for at, s in found if clips in at]
                published, as_label = None, ""
                if source and name in source.chosen:
                    if text in published_results.SHARES:
                        place = published_results.SHARES.index(text)
                        published = source.chosen[name][place]
                    elif text == f"{max(sizes())}/class":
                        published, as_label = source.fewest[name], label
                size = text.replace("%", " %").replace("/", " per ")
                row = _row(name, size, clips, raw(clips), found, reason)
                yield row._replace(published=published, published_label=as_label)
        for method in _METHODS.value:
            for i, per_class in enumerate(sizes()):
                found, reason = self.of(of_coreset, method, per_class)
                clips = per_class * data.num_classes
                f, t = data.image_shape
                stored = (
                    found[0][2] if found else 4 * clips * (f * t + data.num_classes)
                )
                size = f"{per_class} per class"
                row = _row(method.upper(), size, clips, stored, found, reason)
                if source and method == "rfad" and i < len(source.distilled):
                    row = row._replace(
                        published=source.distilled[i],
                        published_label=label if i == 0 else "",
                    )
                yield row

    def write(self):
        """Writes the tables and the picture from what there is."""
        data, rows = loaded(), list(self.rows())
        stem = place() / f"{_MODEL.value}"
        made = budget_table.table(
            rows, data.num_train, data.num_classes, data.train_bytes
        )
        tables.write(made, stem)
        short = budget_table.matrix(rows, data.num_train)
        tables.write(short, stem.with_name(f"{stem.name}-short"))
        write_json(stem.with_suffix(".json"), [row._asdict() for row in rows])
        if any(row.accuracies for row in rows):
            curves, points = _series(rows)
            title = f"{data.name}, {_MODEL.value}"
            learning_curves.draw(
                curves, points, data.num_train, title, stem.with_suffix(".png")
            )
        return f"{tables.markdown(made)}\n\n{tables.markdown(short)}"


def _row(learns_from, size, clips, stored, found, reason):
    accuracies = tuple(one[0] for one in found)
    seconds = tuple(one[1] for one in found)
    return Row(learns_from, size, clips, stored, accuracies, seconds, reason)


def _series(rows):
    """The rows as the curves and points of the picture."""
    curves, points, chosen = [], [], {}
    for row in rows:
        if not row.accuracies:
            continue
        if row.learns_from.isupper():
            seconds = sum(row.seconds) / len(row.seconds)
            points.append(Point(row.clips, row.accuracies, seconds, row.learns_from))
        else:
            chosen.setdefault(row.learns_from, {})[row.clips] = row
    for name, at in chosen.items():
        counts = tuple(sorted(at))
        seeds = min(len(at[count].accuracies) for count in counts)
        accuracies = [at[count].accuracies[:seeds] for count in counts]
        seconds = at[counts[0]].seconds[0]
        curves.append(Curve(name, counts, np.array(accuracies).T, seconds))
    return curves, points


def main(_):
    logging.set_verbosity(logging.WARNING)
    common.keep_compiled(None)
    found = Found()
    with common.continued(place()):
        # Seeds outside, so that a table that was cut has a bit of everything.
        for seed in range(_SEEDS.value):
            found.ask(of_everything, seed)
            for method in _METHODS.value:
                for per_class in sizes():
                    found.ask(of_coreset, method, per_class, seed)
            for acquisition in _ACQUISITIONS.value:
                found.ask(of_choice, acquisition, seed)
    print(found.write())
    print(f"\ntables and picture: {place() / _MODEL.value}.*")


if __name__ == "__main__":
    app.run(main)
