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
one, the further seeds first. ``--first_seed`` begins with another seed, for machines
that share no folder. ``--sizes`` chooses the amount of work: for two CPU cores
(fewer steps, maps of 32 x 64), the datasets' defaults, or the published sizes.

Networks on coresets of DC, DSA and DM have batch norm, as on real clips, and in rows of
their own instance norm (ResNet-18: group norm), since those coresets have other
statistics. Validation clips are nobody's budget: no label of theirs is learnt from.
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
_FIRST_SEED = flags.DEFINE_integer(
    "first_seed", 0, "of them, where another machine runs the others", lower_bound=0
)
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


def request():
    """The rows that the flags ask for."""
    return Request(
        tuple(_METHODS.value),
        tuple(_ACQUISITIONS.value),
        tuple(_BOUGHT.value),
        tuple(range(_FIRST_SEED.value, _FIRST_SEED.value + _SEEDS.value)),
        OTHER_NORM[_MODEL.value],
    )


def ask_all(found, asked):
    """Asks for every row: a whole table by one seed, then by the next.

    Args:
      found: the outcomes so far.
      asked: the request.
    """
    for seed in asked.seeds:
        found.ask("everything", seed)
        for _, method, labels in asked.coresets():
            for per_class in found.runs.sizes:
                found.ask("coreset", method, per_class, labels, seed)
        for acquisition in asked.acquisitions:
            found.ask("choice", acquisition, seed)
        if "rfad" in asked.methods:
            for share in asked.bought:
                ask_bought(found, asked, share, seed)


def ask_bought(found, request, share, seed):
    """Asks for the largest coreset from the labels that the best function bought.

    The function and the size are the first seed's, so that all seeds share a row.
    """
    first_seed = request.seeds[0]
    best = found.best_function(request.acquisitions, share, first_seed)
    if best is None:
        return
    asked = ("bought", best, share)
    known = [*found.results, *found.elsewhere]
    first = [key[3] for key in known if key[:3] == asked and key[-1] == first_seed]
    for per_class in found.runs.sizes:
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
    runs, asked = contenders(), request()
    write = functools.partial(table_report.write, request=asked)
    found = Outcomes(runs, _HOURS.value, write)
    with common.resumable(runs.place):
        ask_all(found, asked)
    print(found.write())
    print(f"\ntables and figure: {runs.place / runs.model}.*")


if __name__ == "__main__":
    explained(lambda: app.run(main))
