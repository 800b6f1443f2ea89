"""Compares networks trained on coresets and on real clips, over distillation seeds.

    python experiments/evaluation_table.py --dataset=spoken_digit \
        --data_dir=/data/fsdd \
        --samples_per_class=10 --protocols=convnet,resnet18,linear,krr \
        --against=random,herding,hard,all

Distils once per seed with the dataset's settings and ``--preset``. Then trains each
network once on each coreset (with its seed), and once per seed on each baseline, with
the network's recipe. Finished runs are not repeated, and interrupted ones resume.
"""

from pathlib import Path

from absl import app, flags, logging

import audiodd_jax
from audiodd_jax.commands import evaluate
from audiodd_jax.commands.main import explained
from audiodd_jax.report import evaluation_table
from audiodd_jax.training import scores as scores_lib

_DATASET = flags.DEFINE_string("dataset", "tones", "dataset")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder with the recordings")
_PRESET = flags.DEFINE_string("preset", "default", "preset of the distillation")
_SAMPLES = flags.DEFINE_integer(
    "samples_per_class", 10, "coreset spectrograms per class"
)
_PROTOCOLS = flags.DEFINE_list("protocols", ["convnet"], "networks to train, or krr")
_AGAINST = flags.DEFINE_list(
    "against", ["random"], "random, herding, hard, a share such as 20%, or all"
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "distillation seeds")
_WORKDIR = flags.DEFINE_string("workdir", "runs/evaluation", "folder of the runs")


def name():
    """Returns the name of the runs."""
    preset = "" if _PRESET.value == "default" else f"-{_PRESET.value}"
    return f"{_DATASET.value}-{_SAMPLES.value}{preset}"


def rows_of_seed(seed):
    """Returns the rows of one distillation seed, and the class names."""
    config = audiodd_jax.for_dataset(
        _DATASET.value,
        _PRESET.value,
        seed=seed,
        coreset__samples_per_class=_SAMPLES.value,
        data__data_dir=_DATA_DIR.value,
    )
    run = audiodd_jax.distill(config, Path(_WORKDIR.value) / f"{name()}-seed{seed}")
    rows = evaluate.compare(
        run.coreset,
        _PROTOCOLS.value,
        _AGAINST.value,
        config=config,
        recipe={"training.seeds": 1},
        out=run.path / "evaluation",
    )
    return rows, run.coreset.class_names


def over_seeds(rows):
    """Joins the scores of all seeds, with their mean seconds, to one row."""
    scores = scores_lib.joined([row.scores for row in rows])
    seconds = sum(row.seconds for row in rows) / len(rows)
    return rows[0]._replace(scores=scores, seconds=seconds)


def main(_):
    logging.set_verbosity(logging.WARNING)
    seeds = [rows_of_seed(seed) for seed in range(_SEEDS.value)]
    by_seed = [rows for rows, _ in seeds]
    lines = [over_seeds(rows) for rows in zip(*by_seed, strict=True)]
    print(evaluation_table.render(lines))
    out = Path(_WORKDIR.value) / f"{name()}-evaluation"
    evaluation_table.write(lines, seeds[0][1], out)
    print(f"\nscores per class and confusion matrices: {out}")


if __name__ == "__main__":
    explained(lambda: app.run(main))
