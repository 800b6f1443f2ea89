"""Compares the predicted memory of a step with the figures of accelerators' compilers.

    bash launch/compilers.sh && python experiments/benchmarks/compiled_memory.py

Compiles random shapes of RFAD steps, the same for each seed. No accelerator is needed.
The constants of ``distillation/cost.py`` were fitted to the first ``--fitted``
shapes; the other shapes were held out. ``--shape`` compiles given shapes instead, on
every ``--target``. Each result is one line of JSON in ``--out``.
"""

import json

import numpy as np
from absl import app, flags

from audiodd_jax.config import Config, fields
from audiodd_jax.distillation import cost
from audiodd_jax.distillation.cost import Sizes
from audiodd_jax.forecast import programs, targets
from audiodd_jax.forecast.workload import Workload
from audiodd_jax.runtime import devices

_TARGETS = flags.DEFINE_list("target", ["v5e", "h100"], "accelerators")
_SEED = flags.DEFINE_integer("seed", 0, "seed of the random shapes")
_SHAPES = flags.DEFINE_integer("shapes", 24, "number of random shapes")
_FITTED = flags.DEFINE_integer(
    "fitted", 16, "shapes to which the constants were fitted"
)
_SHAPE = flags.DEFINE_multi_string(
    "shape", [], "WIDTH,NETWORKS,BATCH,SAMPLES,BINS,FRAMES,PRECISION,CHUNK"
)
_OUT = flags.DEFINE_string("out", None, "file of JSON lines")


def random_shape(rng):
    """Draws sizes between those of a quick run and the published ones."""
    pick = lambda *values: values[rng.integers(len(values))]
    bins, frames = pick((16, 32), (32, 32), (32, 64), (40, 98), (64, 64), (64, 128))
    width, networks = pick(32, 64, 96, 128, 256), pick(1, 2, 4, 8)
    batch, samples = pick(128, 320, 512, 1280), pick(10, 50, 100, 200, 500)
    precision = pick("float32", "bfloat16", "bfloat16")
    chunk = pick(0, 0, 0, 64, 160)
    numbers = (width, networks, batch, samples, bins, frames, precision, chunk)
    return ",".join(map(str, numbers))


def settings(text):
    """Returns the configuration and the sizes of a shape."""
    words = text.split(",")
    width, networks, batch, samples, bins, frames = map(int, words[:6])
    chunk = int(words[7]) if len(words) > 7 else 0
    changes = {
        "network.width": width,
        "network.precision": words[6] if len(words) > 6 else "float32",
        "network.chunk": chunk,
        "rfad.networks": networks,
        "loop.batch_size": batch,
    }
    sizes = Sizes(bins, frames, 10, samples, batch, 2000, 600)
    return fields.replace(Config(), changes), sizes


def measure(name, text):
    """Returns a row with predicted and compiled bytes of a step, and the plan."""
    target, (config, sizes) = targets.parse(name), settings(text)
    chip = target.chip
    grid = devices.choose_grid(target.size, config.rfad.networks)
    problem = cost.problem_of(config, sizes)
    plan = cost.choose_plan(problem, grid, chip.kind, chip.memory)
    predicted = cost.predict(problem, grid, plan, chip.kind)
    work = Workload(config, sizes, 300)
    (found,) = programs.accounts(target, "distill", work, ["step"])
    kept = ("seconds", "steps", "step_bytes", "memory", "flops", "bytes", "error")
    return {
        "target": name,
        "shape": text,
        "plan": list(plan),
        "predicted": predicted.step_bytes,
        "exchange": predicted.exchanged_bytes,
        **{key: found[key] for key in kept if key in found},
        "collectives": found.get("collectives"),
    }


def main(_):
    rng = np.random.default_rng(_SEED.value)
    shapes = _SHAPE.value or [random_shape(rng) for _ in range(_SHAPES.value)]
    print("| step | target | plan | predicted, MB | compiled, MB | ratio | s |")
    print("|---|---|---|---|---|---|---|")
    for number, text in enumerate(shapes):
        part = "" if _SHAPE.value or number < _FITTED.value else ", held out"
        for name in _TARGETS.value:
            if not _SHAPE.value and targets.parse(name).chip.kind == "tpu":
                # The arrays have the same type, and compilation takes a third of the
                # time.
                text = text.replace("float32", "tf32")
            row = measure(name, text)
            if _OUT.value:
                with open(_OUT.value, "a") as file:
                    file.write(json.dumps(row) + "\n")
            if "error" in row:
                print(f"| {text}{part} | {name} | {row['error']} | | | | |", flush=True)
                continue
            # A small step can fit in a TPU's on-chip memory completely.
            compiled = row["step_bytes"]
            ratio = f"{row['predicted'] / compiled:.2f}" if compiled else "none"
            print(
                f"| {text}{part} | {name} | {', '.join(map(str, row['plan']))} "
                f"| {row['predicted'] / 1e6:,.0f} | {compiled / 1e6:,.0f} "
                f"| {ratio} | {row['seconds']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
