"""Prints what equal weights of unequal classes gain, on two sets of a dataset's clips.

    python experiments/unequal_table.py --data_dir=FSDD --workdir=runs/unequal

``--data_dir`` is a checkout of the Free Spoken Digit Dataset, or a folder of Google
Speech Commands. Training clips are left out of it: ``1 : 20`` keeps 200 clips of the
first class, 10 of the second, 200 of the third and so on, and ``long tail`` 200 clips
of the first class, 10 of the last, and numbers between them that fall by the same
factor from class to class. The test split is the official one. Clips of an official
validation split are not used.

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

_DATA_DIR = flags.DEFINE_string("data_dir", None, "folder of the data", required=True)
_SEEDS = flags.DEFINE_integer("seeds", 3, "distillation seeds")
_SAMPLES = flags.DEFINE_integer("samples_per_class", 2, "spectrograms per class")
_STEPS = flags.DEFINE_integer("steps", 100, "distillation steps")
_WORKDIR = flags.DEFINE_string("workdir", "runs/unequal", "folder of sets and runs")

# Training clips of class ``i`` of ``c``.
SETS = {
    "1 : 20": lambda i, c: 200 if i % 2 == 0 else 10,
    "long tail": lambda i, c: round(200 * 20 ** (-i / (c - 1))),
}
WEIGHTS = {
    "equal clips": {"data__balance": "none", "evaluation__metric": "accuracy"},
    "equal classes": {},
}


def official(place):
    """Returns the sampling rate, and training and test files of each class."""
    recordings = place / "recordings"
    if recordings.is_dir():
        # Takes 0 to 4 of each speaker are the test split.
        is_test = lambda file: int(file.stem.rsplit("_", 1)[1]) < 5
        files = {str(i): sorted(recordings.glob(f"{i}_*.wav")) for i in range(10)}
        train = {k: [f for f in v if not is_test(f)] for k, v in files.items()}
        return 8000, train, {k: list(filter(is_test, v)) for k, v in files.items()}
    if not (place / "testing_list.txt").exists():
        raise audiodd_jax.UserError(f"{place} is neither FSDD nor Speech Commands")
    listed = lambda name: {
        line.rsplit(".", 1)[0] for line in (place / name).read_text().split()
    }
    test, held_out = listed("testing_list.txt"), listed("validation_list.txt")
    name = lambda file: f"{file.parent.name}/{file.stem}"
    words = [p for p in sorted(place.iterdir()) if p.is_dir() and p.name[0] != "_"]
    files = {word.name: sorted(word.iterdir()) for word in words}
    pick = lambda keep: {k: [f for f in v if keep(name(f))] for k, v in files.items()}
    return 16_000, pick(lambda n: n not in test | held_out), pick(test.__contains__)


def make(sizes, train, test, place):
    """Links the recordings of one set into a folder with a train and a test split."""
    for i, label in enumerate(train):
        kept = random.Random(i).sample(train[label], sizes(i, len(train)))
        for split, chosen in (("train", kept), ("test", test[label])):
            folder = place / split / label
            folder.mkdir(parents=True, exist_ok=True)
            for file in chosen:
                link = folder / file.name
                if not link.exists():
                    link.symlink_to(file)


def results(name, weights):
    place = Path(_WORKDIR.value) / name.replace(" ", "")
    rate, *splits = official(Path(_DATA_DIR.value).resolve())
    make(SETS[name], *splits, place / "clips")
    found = []
    for seed in range(_SEEDS.value):
        config = audiodd_jax.for_dataset(
            "folder",
            "quick",
            seed=seed,
            coreset__samples_per_class=_SAMPLES.value,
            loop__steps=_STEPS.value,
            data__data_dir=str(place / "clips"),
            features__sample_rate=rate,
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
