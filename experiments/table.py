"""Coresets and active learning at equal budgets, as in the published tables 1 and 2.

    python experiments/table.py --dataset=esc50 --data_dir=/data/esc50 --sizes=study \
        --model=convnet,resnet18 --seeds=3,2 --hours=8

``--sizes=study`` runs the published rows: four acquisition functions, RFAD, RFAD as
``--preset=transfer`` has it (``aligned``), and random clips with the same labels, with
networks that stop by validation clips. ``--plan`` prints the hours of what is not
finished, and runs nothing else.

Each network trains on

- all training clips;
- clips that acquisition functions select, at percentages of all clips and at the
  coresets' sizes;
- coresets of several sizes and methods, with a teacher's labels and with hard labels;
- random clips with the teacher's labels;
- RFAD coresets distilled only from the labels that the best function acquired
  (not with ``--sizes=study``).

Tables (Markdown, CSV, LaTeX, JSON), a summary and a figure are written under the
network's name after each run. Rows that were not run state the reason. Finished runs
are not repeated, and interrupted ones resume.

Several calls may work on one table at the same time, each on its own device or cores
(``CUDA_VISIBLE_DEVICES=0``, ``taskset -c 0``). A call skips what another one is
running, and all calls share their results.

``--hours`` limits the time of this call: runs that are not expected to fit are left for
the next call, later seeds first. ``--first_seed`` starts with another seed, for
machines that share no folder. ``--sizes`` selects the amount of work: for two CPU
cores (``study`` and ``cpu``: maps of 32 x 64), the datasets' defaults, or the published
sizes.

Networks on coresets of DC, DSA and DM use batch norm, as on real clips. Additional rows
use instance norm (ResNet-18: group norm), since those coresets have other statistics.
Validation clips count towards no budget, and no run learns from their labels.
"""

import functools
import time
from logging import WARNING, getLogger
from pathlib import Path

import published_results
import table_plan
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
_MODEL = flags.DEFINE_list("model", ["convnet"], "networks, one table each")
_PER_CLASS = flags.DEFINE_list(
    "samples_per_class", [], "sizes of the coresets (default: the published ones)"
)
_METHODS = flags.DEFINE_list(
    "methods", None, "distillation methods (default: those of --sizes)"
)
_ACQUISITIONS = flags.DEFINE_list(
    "acquisitions", None, "acquisition functions (default: those of --sizes)"
)
_SHARES = flags.DEFINE_list(
    "shares", list(published_results.SHARES), "labels that functions acquire"
)
_BOUGHT = flags.DEFINE_list(
    "bought", None, "shares of labels that RFAD distils from (default: as above)"
)
_SEEDS = flags.DEFINE_list("seeds", ["3"], "number of seeds, for each network or all")
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
_PLAN = flags.DEFINE_bool("plan", False, "print the hours per row, and run nothing")

for _flag, _known in (
    (_MODEL, OTHER_NORM),
    (_METHODS, (*METHODS, "aligned")),
    (_ACQUISITIONS, ACQUISITIONS),
    (_SHARES, published_results.SHARES),
    (_BOUGHT, published_results.SHARES),
):
    flags.register_validator(
        _flag.name,
        lambda values, known=_known: set(known).issuperset(values or ()),
        f"must be among {', '.join(_known)}",
    )
for _flag in (_PER_CLASS, _SEEDS):
    flags.register_validator(
        _flag.name,
        lambda sizes: all(size.isdecimal() and int(size) for size in sizes),
        "must be whole numbers above 0",
    )

# Methods, acquisition functions and shares of bought labels by --sizes.
STUDY_ROWS = (
    ("rfad", "aligned"),
    ("max_entropy", "variation_ratios", "bald", "random"),
    (),
)
OTHER_ROWS = (
    ("rfad", "dc", "dsa", "dm"),
    tuple(name for name in ACQUISITIONS if name not in ("k_center", "badge")),
    ("20%", "40%", "60%"),
)


def sizes():
    """Returns the coresets' sizes per class, largest first."""
    usual = (5, 3, 2) if _DATASET.value == "esc10" else (10, 5, 2)
    name = _DATASET.value.removesuffix("_mini").removeprefix("arabic_")
    usual = published_results.SIZES.get(name, usual)
    if _SIZES.value == "study" and name == "urbansound8k":
        usual = (20, 10, 5)  # of three folds, whose classes have fewer clips
    requested = _PER_CLASS.value or usual
    return sorted({int(size) for size in requested}, reverse=True)


def contenders(model=None):
    """Returns the runs of a network, or the first one, that the flags select."""
    fold = f"-fold{_FOLD.value}" if _FOLD.value else ""
    return Contenders(
        _DATASET.value,
        _DATA_DIR.value,
        _FOLD.value,
        model or _MODEL.value[0],
        sizes(),
        _SIZES.value,
        Path(_WORKDIR.value) / f"{_DATASET.value}{fold}",
        _STEPS.value,
        tuple(_SHARES.value),
    )


def request(model=None):
    """Returns the rows of a network, or the first one, that the flags select."""
    model = model or _MODEL.value[0]
    given = _METHODS.value, _ACQUISITIONS.value, _BOUGHT.value
    usual = STUDY_ROWS if _SIZES.value == "study" else OTHER_ROWS
    kinds = zip(given, usual, strict=True)
    rows = (tuple(usual if row is None else row) for row, usual in kinds)
    number = dict(zip(_MODEL.value, _SEEDS.value, strict=False))
    count = int(number.get(model, _SEEDS.value[-1]))
    seeds = tuple(range(_FIRST_SEED.value, _FIRST_SEED.value + count))
    return Request(*rows, seeds, OTHER_NORM[model])


def ask_all(outcomes, request):
    """Runs every row of one seed, then every row of the next."""
    for seed in request.seeds:
        for key in request.keys(outcomes.runs.sizes, seed):
            outcomes.ask(*key)
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
    began = time.monotonic()
    for model in _MODEL.value:
        runs, rows = contenders(model), request(model)
        write = functools.partial(table_report.write, request=rows)
        hours = _HOURS.value and _HOURS.value - (time.monotonic() - began) / 3600
        outcomes = Outcomes(runs, hours, write)
        if _PLAN.value:
            print(table_plan.table(outcomes, rows))
            continue
        with common.resumable(runs.folder):
            ask_all(outcomes, rows)
        print(outcomes.write())
        print(f"\ntables and figure: {runs.folder / runs.model}.*\n")


if __name__ == "__main__":
    explained(lambda: app.run(main))
