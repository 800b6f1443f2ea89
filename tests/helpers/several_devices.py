"""What eight simulated devices compute beside one; run by test_several_devices.py.

A process of its own: how many devices a CPU is cannot change once JAX has started. What
it finds it prints as JSON.
"""

import json
import re
import sys

import jax

jax.config.update("jax_num_cpu_devices", 8)

import checks  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from audiodd_jax.config import AugmentConfig, Config, fields, presets  # noqa: E402
from audiodd_jax.coreset import selection  # noqa: E402
from audiodd_jax.coreset.arrays import CoresetArrays  # noqa: E402
from audiodd_jax.distillation import (  # noqa: E402
    cost,
    registry,
    rfad,
    steps,
)
from audiodd_jax.distillation.cost import Sizes  # noqa: E402
from audiodd_jax.distillation.method import Context  # noqa: E402
from audiodd_jax.features import augment, batches  # noqa: E402
from audiodd_jax.features.clips import Clips  # noqa: E402
from audiodd_jax.features.labels import centred_targets  # noqa: E402
from audiodd_jax.features.normalization import Normalization  # noqa: E402
from audiodd_jax.kernels import ridge  # noqa: E402
from audiodd_jax.kernels.random_kernels import Plan  # noqa: E402
from audiodd_jax.networks import random_conv  # noqa: E402
from audiodd_jax.networks.models import Ensemble, Network, Variables  # noqa: E402
from audiodd_jax.runtime import devices  # noqa: E402
from audiodd_jax.runtime.devices import Grid  # noqa: E402
from audiodd_jax.training import fit, programs  # noqa: E402

STEPS = 20
PLAN = Plan()
SHAPE, CLASSES, SAMPLES, CLIPS, BATCH = (16, 24), 3, 7, 61, 45


def problem(dtype):
    keys = jax.random.split(jax.random.key(0), 2)
    start = CoresetArrays(
        jax.random.normal(keys[0], (SAMPLES, *SHAPE, 1), dtype),
        centred_targets(jnp.arange(SAMPLES) % CLASSES, CLASSES, dtype),
        jnp.zeros((), dtype),
    )
    images = jax.random.normal(keys[1], (CLIPS, *SHAPE, 1), dtype)
    labels = (jnp.arange(CLIPS) % CLASSES).astype(jnp.int32)
    return start, Clips(images, labels)


def settings(networks):
    return fields.replace(
        Config(),
        {
            "network.width": 8,
            "network.depth": 2,
            "rfad.networks": networks,
            "loop.batch_size": BATCH,
            "optimizer.learning_rate": 1e-2,
        },
    )


def stats():
    zeros = np.zeros(SHAPE[0], np.float32)
    return Normalization(zeros, zeros + 1)


def context(mesh, plan):
    sizes = Sizes(*SHAPE, CLASSES, SAMPLES, BATCH, CLIPS, 0)
    return Context(sizes, stats(), mesh, plan)


def by_mesh(config, grid, dtype, plan=PLAN):
    """The coreset's images after some steps on a grid of devices."""
    start, data = problem(dtype)
    mesh = devices.make_mesh(
        devices=jax.devices()[: grid.networks * grid.batch], grid=grid
    )
    method = rfad.make(config, context(mesh, plan))
    draw = batches.uniform(BATCH)
    chunk = steps.make_chunk(method, draw, config.augment, stats(), mesh=mesh)
    state = devices.replicate(method.init(jax.random.key(1), start), mesh)
    key, data = devices.replicate((jax.random.key(2), data), mesh)
    state, _ = chunk(state, data, STEPS, key)
    return np.asarray(method.coreset(state).images)


def distances(dtype, networks):
    """How far each way of dividing the work is from one device: max and norm."""
    config = settings(networks)
    alone = by_mesh(config, Grid(), dtype)
    grid = devices.choose_grid(8, networks)
    found = {"chosen": by_mesh(config, grid, dtype)}
    if dtype == "float64":
        found["both"] = by_mesh(config, Grid(2, 4), dtype, Plan(4, 2, "nothing"))
    size = lambda x: (float(np.abs(x).max()), float(np.linalg.norm(x)))
    return {
        name: [a / b for a, b in zip(size(x - alone), size(alone), strict=True)]
        for name, x in found.items()
    }


_BYTES = {"f32": 4, "f64": 8, "s32": 4, "pred": 1}


def exchanged(grid, plan):
    """Bytes that the compiled step puts into collectives, and what was predicted.

    Of networks in a loop the program shows one: there is one a device here.
    """
    config = settings(grid.networks)
    start, data = problem(jnp.float32)
    mesh = devices.make_mesh(grid=grid)
    method = rfad.make(config, context(mesh, plan))
    step = jax.jit(method.step, out_shardings=devices.replicated(mesh))
    state = devices.replicate(method.init(jax.random.key(1), start), mesh)
    data = devices.replicate(data, mesh)
    text = step.lower(state, data).compile().as_text()
    total = 0
    for line in text.splitlines():
        found = re.search(r"= (.*?) (all-reduce|all-gather|reduce-scatter)\(", line)
        if not found:
            continue
        shapes = re.findall(r"(\w+)\[([\d,]*)\]", found[1])
        size = sum(
            _BYTES[kind] * int(np.prod([int(n) for n in shape.split(",") if n] or [1]))
            for kind, shape in shapes
        )
        # What a device puts in, from what comes out.
        if found[2] == "all-gather":
            size //= grid.batch
        if found[2] == "reduce-scatter":
            size *= grid.batch
        total += size
    sizes = Sizes(*SHAPE, CLASSES, SAMPLES, CLIPS, CLIPS, 0)
    predicted = cost.predict(cost.problem_of(config, sizes), grid, plan)
    return [total, predicted.exchanged_bytes]


def scored():
    """Kernel regression's predictions on grids, beside one device's."""
    start, data = problem(jnp.float32)
    config = settings(5)

    def predictions(grid):
        mesh = devices.make_mesh(
            devices=jax.devices()[: grid.networks * grid.batch], grid=grid
        )
        predict = lambda images: ridge.predict_images(
            jax.random.key(3),
            images,
            start.images,
            start.labels,
            ridge.Scoring(config.network, num_networks=5, chunk=4, regularizer=5e-3),
            mesh,
        )
        images = devices.replicate(data.images, mesh)
        return np.asarray(jax.jit(predict)(images))

    alone = predictions(Grid())
    return [
        float(np.abs(predictions(Grid(*grid)) - alone).max() / np.abs(alone).max())
        for grid in ((2, 4), (1, 8))
    ]


def linear_teacher(dtype):
    """A teacher whose logits are linear."""
    pixels = SHAPE[0] * SHAPE[1]
    weights = jax.random.normal(jax.random.key(5), (pixels, CLASSES), dtype)

    def predict(networks, images):
        logits = images.reshape(len(images), -1) @ networks.variables.params
        return jax.nn.softmax(logits / pixels**0.5)

    return Ensemble(Network(Variables(weights, {}), None), predict)


def two_changes(group, names):
    """Two augmentations are enough to share, and the others take long to compile."""
    sizes = dict.fromkeys(names, 0.0) | {"time_shift": 0.2, "gain_db": 6.0}
    return {f"{group}__{name}": size for name, size in sizes.items()}


def distilled(method, dtype=np.float32, **more):
    """How far each number of a method's images is on eight devices from one.

    In float64: of FRePo, whose networks then compute in it.
    """
    changes = {
        "method": method,
        "coreset__samples_per_class": 2,
        "loop__batch_size": 30,
        "rfad__kernel_precision": np.dtype(dtype).name,
        "frepo__depth": 1,
        "frepo__width": 4,
        "frepo__networks": 2,
        "frepo__max_age": 3,
        "frepo__norm": "instance",  # without, rounding grows a hundredfold
        "matching__depth": 1,
        "matching__width": 4,
        "matching__real_per_class": 4,
        "matching__outer_loop": 3,
        "matching__inner_loop": 2,
        **two_changes("siamese", augment.CHANGES),
        **more,
    }
    config = presets.for_dataset("tones", **changes)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((40, *SHAPE, 1)).astype(dtype)
    data = Clips(jnp.asarray(images), jnp.arange(40, dtype=jnp.int32) % CLASSES)
    names = tuple(map(str, range(CLASSES)))
    stored = np.full(CLASSES, config.coreset.samples_per_class)
    if method == "dm":
        stored[-1] = 1  # as of a class with few clips
    start = selection.start(jax.random.key(0), data, names, stored, config.coreset)
    sizes = cost.sizes_of(config, SHAPE, stored, 40, 0)
    found = []
    for count in (1, 8):
        grid = Grid(1, count) if method == "frepo" else None
        mesh = devices.make_mesh(CLASSES, jax.devices()[:count], grid)
        teacher = linear_teacher(dtype)
        own = Context(sizes, stats(), mesh, dtype=dtype, teacher=teacher)
        built = registry.get_method(method)(config, own)
        draw = built.draw or batches.uniform(config.loop.batch_size)
        chunk = steps.make_chunk(built, draw, config.augment, stats(), mesh=mesh)
        state = devices.replicate(
            built.init(jax.random.key(1), jax.tree.map(jnp.copy, start)), mesh
        )
        key, clips = devices.replicate((jax.random.key(2), data), mesh)
        state, _ = chunk(state, clips, 5, key)
        found.append(np.asarray(built.coreset(state).images))
    return np.abs(found[1] - found[0]) / np.abs(found[0]).max()


def trained(model, seeds):
    """How far networks trained on eight devices are from those of one."""
    changes = {
        "training__steps": 6,
        "training__batch_size": 32,
        "training__seeds": seeds,
        "training__log_every": 3,
        "model__depth": 2,
        "model__width": 8,
        "model__dropout": 0.2,
        **two_changes("training__augment", vars(AugmentConfig())),
    }
    config = presets.for_model(Config(), model, **changes)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((70, *SHAPE, 1)).astype(np.float32)
    data = Clips(jnp.asarray(images), jnp.arange(70, dtype=jnp.int32) % CLASSES)
    names = tuple(map(str, range(CLASSES)))
    whole = checks.prepared(data, data, stats(), names)
    found = [
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(fitted.networks)])
        for fitted in (
            fit.fit(
                programs.make(config.model, config.training, whole, m),
                fit.real_set(data, CLASSES, config.training),
                config.seed,
            )
            for m in (devices.make_mesh(devices=jax.devices()[:1]), None)
        )
    ]
    return float(np.abs(found[1] - found[0]).max() / np.abs(found[0]).max())


if __name__ == "__main__":
    if sys.argv[1] == "float64":
        jax.config.update("jax_enable_x64", True)
    dtype = jnp.dtype(sys.argv[1])
    counts = (3, 5) if sys.argv[1] == "float32" else (3,)
    result = {f"distill {n}": distances(dtype, n) for n in counts}
    if sys.argv[1] == "float32":
        d = random_conv.num_features(SHAPE, settings(1).network)
        result["exchange"] = {
            "networks": exchanged(Grid(8, 1), Plan()),
            "batch": exchanged(Grid(1, 8), Plan()),
            "both": exchanged(Grid(2, 4), Plan()),
        }
        result["features"] = d
        result["scored"] = scored()
        result["trained"] = trained("convnet", 2)
        result["matched"] = [float(distilled(name).max()) for name in ("dsa", "dm")]
        result["frepo"] = float(np.quantile(distilled("frepo"), 0.99))
    else:
        result["frepo"] = float(distilled("frepo", np.float64).max())
        views = {"rfad__views": 3, "rfad__networks": 2, "network__width": 8}
        result["views"] = float(distilled("rfad", np.float64, **views).max())
    print(json.dumps(result))
