"""Prints the kernel-regression accuracy of RFAD coresets over distillation seeds.

    python experiments/krr_table.py --workdir=runs/krr \
        --case=tones:5 --case=spoken_digit:1:/data/fsdd --case=folder:5:/data/esc10.csv

Each case, DATASET:SAMPLES_PER_CLASS[:DATA_DIR], is distilled with the dataset's default
settings once per seed and precision, and scored on the test split by fresh random
networks in float32. Seconds per step are measured over a run's second half, validations
included. Finished runs are not repeated, and interrupted ones resume.
"""

import json
import statistics
from pathlib import Path

from absl import app, flags, logging

import audiodd_jax
from audiodd_jax.commands.main import explained

_CASES = flags.DEFINE_multi_string("case", ["tones:5"], "DATASET:SAMPLES[:DATA_DIR]")
_SEEDS = flags.DEFINE_integer("seeds", 3, "distillation seeds")
_PRECISIONS = flags.DEFINE_list(
    "precisions", ["float32"], "precisions of the random networks"
)
_WORKDIR = flags.DEFINE_string("workdir", "runs/krr", "folder of the runs")


def percent(values):
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.fmean(values):.1f} ± {100 * spread:.1f}"


def step_seconds(history):
    """Returns the seconds per step in the last half of a run, after all compilation."""
    rows = history[len(history) // 2 :]
    steps = rows[-1]["step"] - rows[0]["step"]
    return (rows[-1]["seconds"] - rows[0]["seconds"]) / steps


def row(case, precision):
    name, samples, *data_dir = case.split(":", 2)
    results, seconds = [], []
    for seed in range(_SEEDS.value):
        config = audiodd_jax.for_dataset(
            name,
            seed=seed,
            coreset__samples_per_class=int(samples),
            network__precision=precision,
            data__data_dir=data_dir[0] if data_dir else "",
        )
        kind = "" if precision == "float32" else f"-{precision}"
        workdir = Path(_WORKDIR.value) / f"{name}-{samples}{kind}-seed{seed}"
        results.append(audiodd_jax.distill(config, workdir).result)
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        seconds.append(step_seconds([json.loads(line) for line in lines]))
    column = lambda field: [result[field] for result in results]
    fraction = results[0]["fraction_of_train"]
    return (
        f"| {name} | {samples} | {precision} | {100 * fraction:.2f} % "
        f"| {percent(column('start_test_accuracy'))} "
        f"| {percent(column('test_accuracy'))} "
        f"| {', '.join(f'{100 * a:.1f}' for a in column('test_accuracy'))} "
        f"| {max(column('wall_seconds')):.0f} | {min(seconds):.3f} |"
    )


def main(_):
    logging.set_verbosity(logging.WARNING)
    print(
        "| data | per class | precision | of train | real clips (%) | distilled (%) "
        "| each | slowest run, s | s per step |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for case in _CASES.value:
        for precision in _PRECISIONS.value:
            print(row(case, precision), flush=True)


if __name__ == "__main__":
    explained(lambda: app.run(main))
