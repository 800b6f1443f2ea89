"""Compiles small forms of every device program for a target; run by ``python -m``.

What it answers is in ``audiodd_jax.forecast.programs``; test_accelerators asks.
"""

import functools
import json
import sys

from audiodd_jax.config import Config, fields, presets
from audiodd_jax.distillation.cost import Sizes
from audiodd_jax.forecast import compilers, programs, targets
from audiodd_jax.forecast.workload import Workload
from audiodd_jax.kernels.random_kernels import Plan
from audiodd_jax.runtime import devices, environment, signals

SIZES = Sizes(16, 16, 4, 8, 16, 32, 24)
PLAN = Plan()
SMALL = {
    "network.width": 8,
    "network.depth": 2,
    "rfad.networks": 8,
    "loop.batch_size": SIZES.b,
    "loop.log_every": 2,
    "evaluation.networks": 8,
    "coreset.samples_per_class": 2,
    "matching.depth": 1,
    "matching.width": 8,
    "matching.real_per_class": 4,
    "matching.network_batch": 8,
    "frepo.depth": 1,
    "frepo.width": 8,
    "frepo.networks": 2,
    "frepo.network_batch": 8,
    "kip.pairs": 16,
    "features.sample_rate": 8000,
    "features.clip_seconds": 0.5,
}


def settings(**changes):
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return fields.replace(Config(), {**SMALL, **dotted})


def network(name, precision, command="step"):
    """A training's programs; ResNet-18 is as deep as it is, and narrow."""
    dropout = {"model.dropout": 0.2} if command == "acquisition" else {}
    config = presets.for_model(settings(), name)
    more = {
        "model.width": 8,
        "training.precision": precision,
        "training.log_every": 2,
        "training.seeds": 1,
        "training.batch_size": 16,
        "active.chunk": 16,
        "active.passes": 3,
        **({"model.depth": 2} if name == "convnet" else {}),
        **dropout,
    }
    return "active", fields.replace(config, more), command


def distillation(command="step", **changes):
    return "distill", settings(**changes), command


PROGRAMS = {
    "rfad float32": distillation(network__depth=1),
    "rfad tf32": distillation(network__precision="tf32", network__depth=1),
    "rfad bfloat16": distillation(network__precision="bfloat16"),
    "rfad wide kernels": distillation(
        network__precision="bfloat16",
        network__depth=1,
        rfad__kernel_precision="float64",
    ),
    "rfad of views": distillation(
        network__depth=1,
        rfad__views=2,
        teacher__networks=2,
        coreset__learn_labels=False,
    ),
    "kip": distillation(method="kip", network__depth=1),
    "frepo": distillation(method="frepo"),
    "dc": distillation(method="dc"),
    "dsa": distillation(method="dsa"),
    "dm": distillation(method="dm"),
    "validation": distillation("validation", network__precision="bfloat16"),
    "scoring": distillation("scoring", network__depth=1),
    "convnet float32": network("convnet", "float32"),
    "convnet bfloat16": network("convnet", "bfloat16"),
    "convnet validation": network("convnet", "bfloat16", "validation"),
    "convnet scoring": network("convnet", "bfloat16", "scoring"),
    "passes": network("convnet", "bfloat16", "acquisition"),
    "resnet18 float32": network("resnet18", "float32"),
    "resnet18 bfloat16": network("resnet18", "bfloat16"),
    "features": ("features", settings(), ""),
}


def make(name, chips):
    command, config, part = PROGRAMS[name]
    if command == "features":
        mesh = devices.make_mesh(devices=chips)
        return programs.features(config.features, mesh, 4)
    work = Workload(config, SIZES, 12, 24, 32)
    made = programs.of_command(command, work, chips)
    return made[part]()


def main():
    signals.follow()
    request = json.load(sys.stdin)
    target = targets.parse(request["target"])
    chips = compilers.devices_of(target)
    assert len(chips) == target.size
    compilers.answer({"programs": request["names"]})
    for name in request["names"][request["skip"] :]:
        wide = "wide" in name
        with environment.standard_numerics(wide):
            found = programs.compiled(functools.partial(make, name, chips), target)
        compilers.answer(found)


if __name__ == "__main__":
    main()
