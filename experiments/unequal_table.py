"""Prints what equal weights of unequal classes gain, on two sets of spoken digits.

    python experiments/unequal_table.py --data_dir=FSDD --workdir=runs/unequal

FSDD is a checkout of the Free Spoken Digit Dataset. Training clips are left out of it:
``1 : 20`` keeps 200 clips of five digits and 10 of the others (the digits alternate),
and ``long tail`` 200 clips of the digit 0, 10 of the digit 9, and numbers between them
that fall by the same factor from digit to digit. The test split is the official one.

Each set is distilled once per seed with the defaults, and once as if all clips weighed
the same (``data.balance=none`` and ``evaluation.metric=accuracy``). Both runs of a seed
start from the same clips. Finished runs are not repeated, and interrupted ones resume.
"""

import random
import statistics
from pathlib import Path

from absl import app, flags, logging

import audiodd_jax
from audiodd_jax.commands.main import explained

_DATA_DIR = flags.DEFINE_string("data_dir", None, "checkout of FSDD", required=True)
_SEEDS = flags.DEFINE_integer("seeds", 3, "distillation seeds")
_SAMPLES = flags.DEFINE_integer("samples_per_class", 2, "spectrograms per digit")
_STEPS = flags.DEFINE_integer("steps", 100, "distillation steps")
_WORKDIR = flags.DEFINE_string("workdir", "runs/unequal", "folder of sets and runs")

# Training clips of each digit.
SETS = {
    "1 : 20": [200 if digit % 2 == 0 else 10 for digit in range(10)],
    "long tail": [round(200 * 20 ** (-digit / 9)) for digit in range(10)],
}
WEIGHTS = {
    "equal clips": {"data__balance": "none", "evaluation__metric": "accuracy"},
    "equal classes": {},
}


def make(sizes, place):
    """Links the recordings of one set into a folder with a train and a test split."""
    recordings = Path(_DATA_DIR.value).resolve() / "recordings"
    if not recordings.is_dir():
        raise audiodd_jax.UserError(f"there is no folder {recordings}")
    for digit, size in enumerate(sizes):
        files = sorted(recordings.glob(f"{digit}_*.wav"))
        # Takes 0 to 4 of each speaker are the official test split.
        is_test = lambda file: int(file.stem.rsplit("_", 1)[1]) < 5
        train = [file for file in files if not is_test(file)]
        kept = random.Random(digit).sample(train, size)
        for split, chosen in (("train", kept), ("test", filter(is_test, files))):
            folder = place / split / str(digit)
            folder.mkdir(parents=True, exist_ok=True)
            for file in chosen:
                link = folder / file.name
                if not link.exists():
                    link.symlink_to(file)


def results(name, weights):
    place = Path(_WORKDIR.value) / name.replace(" ", "")
    make(SETS[name], place / "clips")
    found = []
    for seed in range(_SEEDS.value):
        config = audiodd_jax.for_dataset(
            "folder",
            "quick",
            seed=seed,
            coreset__samples_per_class=_SAMPLES.value,
            loop__steps=_STEPS.value,
            data__data_dir=str(place / "clips"),
            features__sample_rate=8000,
            features__n_mels=32,
            features__frames=64,
            features__window_seconds=0.064,
            features__top_db=60.0,
            **WEIGHTS[weights],
        )
        workdir = place / f"{weights.replace(' ', '-')}-seed{seed}"
        found.append(audiodd_jax.distill(config, workdir).result)
    return found


def row(name, weights):
    found = results(name, weights)
    column = lambda field: [result[field] for result in found]
    percent = lambda field: (
        f"{100 * statistics.fmean(column(field)):.1f} ± "
        f"{100 * statistics.stdev(column(field)) if len(found) > 1 else 0.0:.1f}"
    )
    each = ", ".join(f"{100 * a:.1f}" for a in column("test_balanced_accuracy"))
    return (
        f"| {name} | {weights} | {percent('start_test_balanced_accuracy')} "
        f"| {percent('test_balanced_accuracy')} | {each} "
        f"| {statistics.fmean(column('start_macro_f1')):.3f} "
        f"| {statistics.fmean(column('macro_f1')):.3f} "
        f"| {max(column('wall_seconds')):.0f} |"
    )


def main(_):
    logging.set_verbosity(logging.WARNING)
    print(
        "| clips | weights | real clips, balanced (%) | distilled, balanced (%) | each "
        "| macro F1, real clips | macro F1, distilled | slowest run, s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in SETS:
        for weights in WEIGHTS:
            print(row(name, weights), flush=True)


if __name__ == "__main__":
    explained(lambda: app.run(main))
