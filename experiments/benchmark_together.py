"""Runs of equal shape: one after the other, and as one vmapped program.

    python experiments/benchmark_together.py --runs=8 --turns=3

Seeds of RFAD on the embedded dataset with the preset ``quick``, in memory, on one
device, with validations and what compilation the cache leaves. Alternating turns,
medians. On an accelerator that a run does not fill, together should win; a CPU has
nothing to fill.
"""

import statistics

import jax
import turns
from absl import app, flags, logging

import audiodd_jax
from audiodd_jax import cli_support
from audiodd_jax.distillation import loop, together
from audiodd_jax.runtime import devices

_RUNS = flags.DEFINE_list("runs", ["4", "8"], "runs that are compared, several cases")
_STEPS = flags.DEFINE_integer("steps", 50, "of a run")
_TURNS = flags.DEFINE_integer("turns", 3, "alternating turns")
_WIDTH = flags.DEFINE_integer("width", 16, "of the random networks")
_BATCH = flags.DEFINE_integer("batch", 256, "clips of a step")


def main(_):
    logging.set_verbosity(logging.WARNING)
    cli_support.keep_compiled(None)
    mesh = devices.make_mesh(devices=jax.local_devices()[:1])
    print(f"on {jax.devices()[0].device_kind}; width {_WIDTH.value}")
    print("| runs | one after the other, s | together, s | times |")
    print("|---|---|---|---|")
    for runs in map(int, _RUNS.value):
        configs = [
            audiodd_jax.for_dataset(
                "tones",
                "quick",
                seed=seed,
                coreset__samples_per_class=1,
                network__width=_WIDTH.value,
                loop__batch_size=_BATCH.value,
                loop__steps=_STEPS.value,
            )
            for seed in range(runs)
        ]
        data = audiodd_jax.prepare(configs[0])
        contenders = {
            "alone": lambda c=configs, d=data: [
                loop.distill(one, d, mesh=mesh) for one in c
            ],
            "together": lambda c=configs, d=data: together.distill(
                c, d, [None] * len(c)
            ),
        }
        found = turns.measure(contenders, _TURNS.value, 1)
        alone, joined = (statistics.median(found[name]) for name in contenders)
        print(
            f"| {runs} | {alone:.2f} | {joined:.2f} | {alone / joined:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
