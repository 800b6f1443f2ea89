"""Coresets and active learning at equal budgets, as in the published tables 1 and 2.

    python experiments/table.py --dataset=arabic_speech_commands \
        --data_dir=/data/arabic --model=convnet --seeds=3 --hours=8

One network trains on

- all training clips;
- clips that acquisition functions select, at percentages of all clips and at the
  coresets' sizes;
- coresets of several sizes and methods, with a teacher's labels and with hard labels;
- random clips with the teacher's labels;
- RFAD coresets distilled only from the labels that the best function acquired.

Tables (Markdown, CSV, LaTeX, JSON), a summary and a figure are written under the
network's name after each run. Rows that were not run state the reason. Finished runs
are not repeated, and interrupted ones resume.

Several calls may work on one table at the same time, each on its own device or cores
(``CUDA_VISIBLE_DEVICES=0``, ``taskset -c 0``). A call skips what another one is
running, and all calls share their results.

``--hours`` limits the time of this call: runs that are not expected to fit are left for
the next call, later seeds first. ``--first_seed`` starts with another seed, for
machines that share no folder. ``--sizes`` selects the amount of work: for two CPU cores
(fewer steps, maps of 32 x 64), the datasets' defaults, or the published sizes.

Networks on coresets of DC, DSA and DM use batch norm, as on real clips. Additional rows
use instance norm (ResNet-18: group norm), since those coresets have other statistics.
Validation clips count towards no budget, and no run learns from their labels.
"""

import functools
from logging import WARNING, getLogger
from pathlib import Path

import published_results
import table_report
from absl import app, flags, logging
from contenders import CHANGES, OTHER_NORM, Contenders
from outcomes import Outcomes
from table_report import Request

from audiodd_jax.commands import common
from audiodd_jax.commands.main import explained
from audiodd_jax.config.names import ACQUISITIONS, METHODS

_DATASET = flags.DEFINE_string("dataset", "tones", "dataset")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder with the recordings")
_FOLD = flags.DEFINE_integer("fold", 0, "test fold (0: the last one)")
_MODEL = flags.DEFINE_enum("model", "convnet", ["convnet", "resnet18"], "network")
_PER_CLASS = flags.DEFINE_list(
    "samples_per_class", [], "sizes of the coresets (default: the published ones)"
)
_METHODS = flags.DEFINE_list(
    "methods", ["rfad", "dc", "dsa", "dm"], "distillation methods"
)
_ACQUISITIONS = flags.DEFINE_list(
    "acquisitions",
    [name for name in ACQUISITIONS if name not in ("k_center", "badge")],
    "acquisition functions",
)
_BOUGHT = flags.DEFINE_list(
    "bought", ["20%", "40%", "60%"], "shares of labels that RFAD distils from"
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "number of seeds", lower_bound=1)
_FIRST_SEED = flags.DEFINE_integer(
    "first_seed", 0, "first seed, if another machine runs the others", lower_bound=0
)
_HOURS = flags.DEFINE_float(
    "hours", 0.0, "time limit of this call (0: none)", lower_bound=0.0
)
_SIZES = flags.DEFINE_enum("sizes", "cpu", list(CHANGES), "amount of work")
_STEPS = flags.DEFINE_integer(
    "training_steps",
    0,
    "training steps of the network in every row (0: those of --sizes)",
    lower_bound=0,
)
_WORKDIR = flags.DEFINE_string("workdir", "runs/table", "folder of the runs")

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
    """Returns the coresets' sizes per class, largest first."""
    usual = (5, 3, 2) if _DATASET.value == "esc10" else (10, 5, 2)
    name = _DATASET.value.removesuffix("_mini").removeprefix("arabic_")
    requested = _PER_CLASS.value or published_results.SIZES.get(name, usual)
    return sorted({int(size) for size in requested}, reverse=True)


def contenders():
    """Returns the runs that the flags select."""
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


def request():
    """Returns the rows that the flags select."""
    return Request(
        tuple(_METHODS.value),
        tuple(_ACQUISITIONS.value),
        tuple(_BOUGHT.value),
        tuple(range(_FIRST_SEED.value, _FIRST_SEED.value + _SEEDS.value)),
        OTHER_NORM[_MODEL.value],
    )


def ask_all(outcomes, request):
    """Runs every row of one seed, then every row of the next."""
    for seed in request.seeds:
        outcomes.ask("everything", seed)
        for _, method, labels in request.coresets():
            for per_class in outcomes.runs.sizes:
                outcomes.ask("coreset", method, per_class, labels, seed)
        for acquisition in request.acquisitions:
            outcomes.ask("choice", acquisition, seed)
        if "rfad" in request.methods:
            for share in request.bought:
                ask_bought(outcomes, request, share, seed)


def ask_bought(outcomes, request, share, seed):
    """Runs the largest coreset from the labels that the best function acquired.

    All seeds use the first seed's function and size, so that they share a row.
    """
    first_seed = request.seeds[0]
    best = outcomes.best_function(request.acquisitions, share, first_seed)
    if best is None:
        return
    row = ("bought", best, share)
    keys = [*outcomes.results, *outcomes.elsewhere]
    first = [key[3] for key in keys if key[:3] == row and key[-1] == first_seed]
    for per_class in outcomes.runs.sizes:
        if first and per_class > first[0]:
            continue  # All seeds share one size, even if some labels allow more.
        key = (*row, per_class, seed)
        outcomes.ask(*key)
        # Smaller coresets are tried only if the labels do not suffice for this one.
        if key in outcomes.results or key in outcomes.elsewhere:
            return


def main(_):
    logging.set_verbosity(logging.WARNING)
    getLogger("audiodd_jax").setLevel(WARNING)  # without one line per chunk of each run
    common.keep_compiled(None)
    runs, rows = contenders(), request()
    write = functools.partial(table_report.write, request=rows)
    outcomes = Outcomes(runs, _HOURS.value, write)
    with common.resumable(runs.folder):
        ask_all(outcomes, rows)
    print(outcomes.write())
    print(f"\ntables and figure: {runs.folder / runs.model}.*")


if __name__ == "__main__":
    explained(lambda: app.run(main))
