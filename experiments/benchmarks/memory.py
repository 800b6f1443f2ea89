"""Compares predicted and measured peak memory of RFAD steps.

    python experiments/benchmarks/memory.py

The prediction is the one of ``audiodd distill --dry_run``, before anything is
allocated. Each case, written as in step.py, is measured in a process of its own.
"""

import step as step_benchmark
from absl import app, flags, logging
from step import Case

from audiodd_jax.forecast import programs
from audiodd_jax.forecast.workload import Workload
from audiodd_jax.runtime import devices

_SHAPES = flags.DEFINE_multi_string(
    "shape",
    [
        "64,2,1280,100,32,32",
        "64,2,2048,200,64,64",
        "128,2,1280,100,64,64",
        "256,2,512,100,32,64",
        "64,4,512,200,64,128",
        "64,4,512,200,64,128,64",
        "32,4,4096,500,32,64",
        "128,8,1280,100,32,32",
        "256,1,256,50,64,128,32",
        "16,8,4096,300,64,128",
    ],
    "WIDTH,NETWORKS,BATCH,SAMPLES,BINS,FRAMES[,CHUNK]",
)


def main(_):
    logging.set_verbosity(logging.WARNING)
    print(
        "| width | networks | batch | samples | size | plan | step, MB | predicted "
        "peak, MB | measured, MB | predicted / measured |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for text in _SHAPES.value:
        case, mesh = Case.parse(text), devices.make_mesh()
        grid = devices.grid_of(mesh)
        plan = case.plan(grid)
        work = Workload(case.config(), case.sizes(), 0)
        step = programs.compiled_bytes(work, mesh, plan)
        predicted = case.cost(grid).peak_bytes(step) / 1e6
        measured = step_benchmark.alone(text)["megabytes"]
        print(
            f"| {case.cells()} | {plan.chunk}, {plan.coreset_chunk}, {plan.keeps} "
            f"| {step / 1e6:.0f} | {predicted:.0f} | {measured:.0f} "
            f"| {predicted / measured:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
