"""What eight simulated devices compute of exact kernels beside one.

A process of its own, as several_devices.py is; run by test_exact_devices.py.
"""

import json

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from audiodd_jax.config import Config, RandomNetworkConfig, fields  # noqa: E402
from audiodd_jax.coreset.arrays import CoresetArrays  # noqa: E402
from audiodd_jax.distillation import kip  # noqa: E402
from audiodd_jax.distillation.cost import Sizes  # noqa: E402
from audiodd_jax.distillation.method import Context  # noqa: E402
from audiodd_jax.features.clips import Clips  # noqa: E402
from audiodd_jax.features.labels import centred_targets  # noqa: E402
from audiodd_jax.features.normalization import Normalization  # noqa: E402
from audiodd_jax.kernels import exact_matrix  # noqa: E402
from audiodd_jax.runtime import devices  # noqa: E402

SHAPE, CLASSES, SAMPLES, BATCH, STEPS = (8, 8), 3, 5, 11, 5
STATS = Normalization(np.zeros(8, np.float32), np.ones(8, np.float32))


def images(count, seed):
    return jax.random.normal(jax.random.key(seed), (count, *SHAPE, 1), jnp.float64)


def mesh_of(count):
    return devices.make_mesh(devices=jax.devices()[:count])


def matrices(x2):
    """Whether devices change a bit of a matrix."""
    config = RandomNetworkConfig(depth=1)
    found = [
        exact_matrix.matrix(
            config, "nngp", images(9, 0), x2, mesh=mesh_of(count), pairs=4
        )
        for count in (1, 8)
    ]
    return float(np.abs(found[1] - found[0]).max())


def steps(count):
    """The coreset's arrays, and the loss, after some steps of KIP."""
    settings = {"method": "kip", "network.depth": 1, "kip.pairs": 4}
    config = fields.replace(Config(), {**settings, "rfad.loss": "platt"})
    mesh = mesh_of(count)
    sizes = Sizes(*SHAPE, CLASSES, SAMPLES, BATCH, BATCH, 0)
    method = kip.make(config, Context(sizes, STATS, mesh))
    labels = (jnp.arange(BATCH) % CLASSES).astype(jnp.int32)
    start = CoresetArrays(
        images(SAMPLES, 1),
        centred_targets(jnp.arange(SAMPLES) % CLASSES, CLASSES, jnp.float64),
        jnp.zeros((), jnp.float64),
    )
    state = devices.replicate(method.init(jax.random.key(2), start), mesh)
    data = devices.replicate(Clips(images(BATCH, 3), labels), mesh)
    step = jax.jit(method.step, out_shardings=devices.replicated(mesh))
    for _ in range(STEPS):
        state, metrics = step(state, data)
    return [np.asarray(x) for x in (*method.coreset(state), metrics["loss"])]


def distance():
    """How far eight devices' arrays are from one's, relative to their size."""
    pairs = zip(steps(8), steps(1), strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


if __name__ == "__main__":
    found = {
        "gram": matrices(None),
        "matrix": matrices(images(7, 4)),
        "kip": distance(),
    }
    print(json.dumps(found))
