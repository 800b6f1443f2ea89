"""Compares all methods by learners trained on their coresets.

    python experiments/methods_table.py \
        --case=spoken_digit:1:/data/fsdd --case=spoken_digit:10:/data/fsdd \
        --case=esc10:5:/data/esc10

A case is DATASET:SAMPLES_PER_CLASS[:DATA_DIR]. Each method distils once per seed in a
separate process, which reports its seconds and peak memory. The coreset is scored on
the test split by kernel regression (one draw of networks per distillation) and by
networks trained on it, once per seed; ResNet-18 uses the first seeds only. Sizes are
the defaults of dataset and method, with the changes below for two CPU cores and
``--changes``. Finished runs are not repeated, and interrupted ones resume.
"""

import statistics
import subprocess
import sys
from pathlib import Path

from absl import app, flags, logging

import audiodd_jax
from audiodd_jax.commands import common, evaluate
from audiodd_jax.commands.main import explained
from audiodd_jax.config import fields
from audiodd_jax.config.names import METHODS
from audiodd_jax.errors import UserError
from audiodd_jax.runtime.files import read_json, write_atomically

_CASES = flags.DEFINE_multi_string("case", ["tones:5"], "DATASET:SAMPLES[:DATA_DIR]")
_METHODS = flags.DEFINE_list(
    "methods",
    ["random", "herding", "k_center", "rfad", "dc", "dsa", "dm"],
    f"any of {', '.join(METHODS)}; a suffix such as /2 sets coreset.factor",
)
_PROTOCOLS = flags.DEFINE_list(
    "protocols", ["convnet", "resnet18"], "networks to train"
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "distillation seeds")
_RESNET_SEEDS = flags.DEFINE_integer(
    "resnet_seeds", 1, "seeds for ResNet-18, the first ones"
)
_CHANGES = flags.DEFINE_multi_string("changes", [], "settings as group.field=value")
_WORKDIR = flags.DEFINE_string("workdir", "runs/methods", "folder of the runs")

# Steps by method, and other sizes for two CPU cores.
_STEPS = {"rfad": 200, "dm": 200, "dc": 60, "dsa": 60}
# With one sample per class there is no inner loop.
_STEPS_OF_ONE = {"dc": 120, "dsa": 120}
_SIZES = {"evaluation.seeds": 1}
_OF_DATASET = {"esc10": {"features.n_mels": 32, "features.frames": 64}}
# Batch norm would learn the statistics of matched coresets, which differ from those of
# real clips. The ResNet's last map has a position or two, which instance norm would
# reduce to nothing.
_TRAINING = {
    "convnet": {"training.steps": 150, "model.norm": "instance"},
    "resnet18": {"training.steps": 100, "model.norm": "group"},
}


def distilled(case, method, seed):
    """Runs a method on a case unless it is finished; returns the run directory."""
    dataset, samples, *folders = case.split(":", 2)
    name, _, factor = method.partition("/")
    workdir = Path(_WORKDIR.value) / f"{dataset}-{samples}" / f"{method}-seed{seed}"
    workdir = workdir.with_name(workdir.name.replace("/", "x"))
    if (workdir / "result.json").exists():
        return workdir
    changes = dict(change.split("=", 1) for change in _CHANGES.value)
    sizes = {**_SIZES, **_OF_DATASET.get(dataset, {})}
    steps = {**_STEPS, **(_STEPS_OF_ONE if samples == "1" else {})}
    if name in steps:
        sizes["loop.steps"] = steps[name]
    command = [
        *(sys.executable, "-m", "audiodd_jax", "distill", f"--dataset={dataset}"),
        *(f"--samples_per_class={samples}", f"--method={name}", f"--seed={seed}"),
        *(f"--data_dir={folder}" for folder in folders),
        *(f"--config.{field}={value}" for field, value in {**sizes, **changes}.items()),
        *(f"--config.coreset.factor={factor or 1}", f"--workdir={workdir}"),
    ]
    workdir.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{workdir}.log", "w") as log:
        ran = subprocess.run(command, check=False, stdout=log, stderr=log)
    if ran.returncode:
        *_, last = ["no output", *Path(log.name).read_text().splitlines()]
        reason = last.removeprefix("audiodd: error: ")
        raise UserError(f"the run of {method} failed ({log.name}): {reason}")
    return workdir


def trained(case, run, protocol, seed):
    """Returns the test accuracy of a network trained on a run's coreset."""
    config = fields.from_dict(read_json(run / "config.json"))
    config = fields.replace(config, {"seed": seed})
    rows = evaluate.compare(
        audiodd_jax.load_coreset(run / "coreset.npz"),
        [protocol],
        config=config,
        recipe={"training.seeds": 1, **_TRAINING.get(protocol, {})},
        out=run / "evaluation",
    )
    return rows[0].scores.mean


def percent(values):
    values = [100 * value for value in values]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}" if values else "not run"


def row(case, method):
    """Returns one line of the table."""
    dataset, samples, *_ = case.split(":", 2)
    runs = [distilled(case, method, seed) for seed in range(_SEEDS.value)]
    results = [read_json(run / "result.json") for run in runs]
    cells = [percent([result["test_accuracy"] for result in results])]
    for protocol in _PROTOCOLS.value:
        last = protocol == "resnet18"
        seeds = range(_RESNET_SEEDS.value if last else _SEEDS.value)
        cells.append(
            percent([trained(case, runs[seed], protocol, seed) for seed in seeds])
        )
    seconds = statistics.fmean(result["wall_seconds"] for result in results)
    peak = max(result["peak_memory_bytes"] for result in results) / 1e9
    size = results[0]
    return (
        f"| {dataset}, {samples} | {method} | {' | '.join(cells)} | {size['steps']} "
        f"| {seconds:.0f} | {peak:.2f} | {size['stored_values']:,} "
        f"| {size['bytes']:,} |"
    )


def main(_):
    logging.set_verbosity(logging.WARNING)
    common.keep_compiled(None)
    lines = [
        f"| data, per class | method | kernel regression | "
        f"{' | '.join(_PROTOCOLS.value)} | steps | s | peak, GB | values | bytes |",
        "|---" * (8 + len(_PROTOCOLS.value)) + "|",
    ]
    print("\n".join(lines), flush=True)
    for case in _CASES.value:
        for method in _METHODS.value:
            lines.append(row(case, method))
            print(lines[-1], flush=True)
    path = Path(_WORKDIR.value) / "table.md"
    write_atomically(path, "\n".join(lines) + "\n")


if __name__ == "__main__":
    explained(lambda: app.run(main))
