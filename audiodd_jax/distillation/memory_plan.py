"""What a step costs a device: memory, arithmetic, exchange; and the plan that fits.

All is plain arithmetic of the sizes, so that a plan is chosen before anything is
compiled. The memory is a fit, within a half or so, to what XLA reports of compiled
steps on a CPU (BUILD_NOTES.md), where a block's convolution and pooling are one loop;
accelerators write the convolution's output, which is counted in full but was not
measured. ``steps.compiled_bytes`` asks the compiler itself.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from audiodd_jax.config import Config, RandomNetworkConfig
from audiodd_jax.kernels.random_kernels import Plan
from audiodd_jax.networks import random_conv
from audiodd_jax.ops import precision, winograd
from audiodd_jax.runtime.devices import Grid
from audiodd_jax.runtime.memory import memory_of, memory_share

# Memory of a row's forward pass, and of its forward and backward pass, in sizes of the
# first block's activations.
_FORWARD = {"cpu": 0.5, "other": 2.5}
_BACKWARD = {"cpu": 3.6, "other": 5.0}
# Transforms of the tiles of a fast convolution.
_TILES = 15
# A loop over a single network is none to XLA, which then overlaps what it would not.
_SINGLE = 2.2
# Copies of the batch, and of the coreset beside its state.
_BATCH_COPIES, _CORESET_COPIES = 2, 2
# Its images, the optimiser's two moments, the first and the best.
_STATE_COPIES = 5
# What a process takes before its first step: Python, JAX, compiled programs.
_PROCESS_BYTES = 680 << 20
_LEAST_CHUNK = 8


class Sizes(NamedTuple):
    """What the cost of a run depends on, beside its configuration.

    Attributes:
      f: mel bins.
      t: frames.
      c: classes.
      s: coreset samples that are learnt from: of each stored one, ``factor``.
      b: clips of a batch.
      train: training clips on the device.
      scored: validation and test clips on the device.
    """

    f: int
    t: int
    c: int
    s: int
    b: int
    train: int
    scored: int


class Cost(NamedTuple):
    """What a device is predicted to need.

    Attributes:
      parameters: of one random network.
      features: that it returns of a clip.
      flops: a step, all devices together, as plain convolutions and products.
      step_bytes: memory that a step takes for itself.
      base_bytes: what is there beside a step: data, state, on a CPU the process itself.
      scoring_bytes: memory that scoring takes for itself, between steps.
      exchanged_bytes: a step, that a device gives to be summed or gathered.
    """

    parameters: int
    features: int
    flops: int
    step_bytes: int
    base_bytes: int
    scoring_bytes: int
    exchanged_bytes: int

    def peak_bytes(self, step_bytes: int | None = None) -> int:
        """Peak memory, with the compiler's figure for a step where that is known."""
        step = self.step_bytes if step_bytes is None else step_bytes
        return self.base_bytes + max(step, self.scoring_bytes)


def sizes_of(
    config: Config, shape: tuple[int, int], classes: int, clips: int, scored: int
) -> Sizes:
    """The sizes of a run.

    Args:
      config: of the run.
      shape: ``(f, t)`` of the spectrograms.
      classes: ``c``.
      clips: that train.
      scored: validation and test clips.
    """
    on_device = 0 if config.data.storage == "host" else clips
    coreset = config.coreset
    s = classes * coreset.samples_per_class * coreset.factor
    b = config.loop.batch_size
    return Sizes(*shape, classes, s, min(b, clips), on_device, scored)


def predict(
    config: Config, sizes: Sizes, grid: Grid, plan: Plan, kind: str = "cpu"
) -> Cost:
    """The cost of a run.

    Args:
      config: of the run.
      sizes: of its data.
      grid: how devices share the work.
      plan: what a step computes at once, and keeps.
      kind: ``cpu`` or another platform.
    """
    kind = kind if kind == "cpu" else "other"
    network, shape = config.network, (sizes.f, sizes.t)
    d, pixels = random_conv.num_features(shape, network), sizes.f * sizes.t
    own_b, own_s = -(-sizes.b // grid.batch), -(-sizes.s // grid.batch)
    own_n = -(-config.rfad.networks // grid.networks)
    kept = jnp.dtype(precision.dtype(network.precision, jnp.float32)).itemsize
    # CPUs compute in float32 whatever they round to.
    row = 4 * pixels * network.width * (1 if kind == "cpu" else kept / 4)

    def forward(rows: int, most: int, network_row: float = row) -> float:
        return _FORWARD[kind] * min(rows, most or rows) * network_row

    phi = own_n * own_b * d * kept if plan.keeps == "features" else own_b * d * kept
    if plan.coreset_chunk and plan.keeps == "features":
        phi += own_n * sizes.s * d * kept
    backward = _BACKWARD[kind] * min(own_s, plan.coreset_chunk or own_s) * row
    if plan.coreset_chunk:
        backward += 2 * own_s * d * 4
    if plan.keeps == "nothing":
        backward += (own_n == 1) * _SINGLE * row * min(own_b, plan.chunk or own_b)
    kernels = 4 * 4 * sizes.s * (own_b + sizes.s)
    images = 4 * pixels * (_BATCH_COPIES * sizes.b + _CORESET_COPIES * sizes.s)
    own = _parameters(shape, network)
    step = phi + kernels + images + 8 * own
    step += max(backward, forward(own_b, plan.chunk))
    if kind == "cpu" and network.width >= winograd.CHANNELS:
        step += _TILES * winograd.TILES * network.width * 4
    data = pixels * (2 * sizes.train + 4 * sizes.scored)
    scoring = config.evaluation
    wide = row * (scoring.width or network.width) / network.width
    scored = forward(sizes.scored, scoring.batch_size, wide)
    scored += 4 * sizes.s * (sizes.scored + d * wide / row)
    state = 4 * pixels * sizes.s * _STATE_COPIES
    base = (_PROCESS_BYTES if kind == "cpu" else 0) + data + state
    return Cost(
        own,
        d,
        _flops(config, sizes, d, plan),
        math.ceil(step),
        math.ceil(base),
        math.ceil(scored),
        _exchanged(sizes, grid, own_n, own_b, own_s * d * kept, plan),
    )


def _parameters(shape: tuple[int, int], config: RandomNetworkConfig) -> int:
    """Numbers of one random network."""
    w, channels, total = config.width, 1, 0
    for _ in range(config.depth):
        total += (9 * channels + 1) * w
        channels = w
    if config.readout == "dense":
        f, t = random_conv.feature_map_shape(shape, config)
        total += (w * f * t + 1) * config.output_dim
    return total


def _flops(config: Config, sizes: Sizes, d: int, plan: Plan) -> int:
    """Of a step: a multiplication and an addition are two."""
    network, (f, t) = config.network, (sizes.f, sizes.t)
    one, channels = 0, 1
    for _ in range(network.depth):
        one += 2 * 9 * channels * network.width * f * t
        f, t, channels = f // 2, t // 2, network.width
    if network.readout == "dense":
        one += 2 * f * t * network.width * d
    again = plan.keeps == "nothing"
    # The coreset: forward, once more for the backward pass (twice in chunks of which
    # no features are kept), and the gradient.
    passes = 3 + (again and plan.coreset_chunk > 0)
    rows = sizes.b * (1 + again) + sizes.s * passes
    products = 2 * d * sizes.s * (2 * sizes.b + 3 * sizes.s)
    solve = sizes.s**3 + 6 * sizes.s * sizes.c * (sizes.b + sizes.s)
    return config.rfad.networks * (rows * one + products) + solve


def _exchanged(
    sizes: Sizes, grid: Grid, own_n: int, own_b: int, phi_s: int, plan: Plan
) -> int:
    """Bytes that a device puts into the collectives of a step."""
    size, s = 0, sizes.s
    if grid.networks > 1:
        size += 4 * s * (own_b + s)
    if grid.networks * grid.batch > 1:
        size += 4 * s * sizes.f * sizes.t
    if grid.batch > 1:
        size += 4 * (s * sizes.c + 3)
        # Features of the coreset are gathered, again in the backward pass, and their
        # gradients scattered.
        again = plan.keeps == "nothing" or not plan.coreset_chunk
        size += own_n * phi_s * (1 + again + grid.batch)
    return size


def choose(
    config: Config,
    sizes: Sizes,
    grid: Grid,
    device: jax.Device | None = None,
) -> Plan:
    """The plan that computes most at once and fits the device, by prediction.

    The least that there is, where none fits. ``config.network.chunk`` sets its chunks.

    Args:
      config: of the run.
      sizes: of its data.
      grid: how devices share the work.
      device: one of them; None: this process's first.
    """
    device = device or jax.local_devices()[0]
    kind = "cpu" if device.platform == "cpu" else "other"
    budget = memory_share(kind) * memory_of(device)
    chunk = config.network.chunk
    plans = [
        Plan(*chunks, keeps)
        for keeps in ("features", "nothing")
        for chunks in ([(chunk, chunk)] if chunk else _chunks(sizes.b, sizes.s))
    ]
    for plan in plans:
        found = predict(config, sizes, grid, plan, device.platform)
        if found.peak_bytes() <= budget:
            return plan
    return plans[-1]


def _chunks(b: int, s: int) -> list[tuple[int, int]]:
    """Chunks of batch and coreset, from all at once downwards."""
    found, chunk = [(0, 0)], b
    while chunk > _LEAST_CHUNK:
        chunk //= 2
        found.append((chunk, 0))
        # A row of the coreset takes several times what one of the batch does.
        found.append((chunk, chunk // 4 if chunk // 4 < s else 0))
    return [(a, c) for a, c in found if (a >= _LEAST_CHUNK or not a) and c != 1]
