"""Memory, arithmetic and communication volume of a step; the plan that fits a device.

All by arithmetic of the sizes, so that a plan is chosen before anything is compiled.
The constants are fitted to the compilers' memory analysis of steps for CPUs, TPUs (v5e)
and GPUs (H100; experiments/RESULTS.md). On CPU a block's convolution and pooling are
one loop; accelerators write the convolution's output. ``steps.compiled_bytes`` and
``jobs.target_forecast`` ask the compiler.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from audiodd_jax.config import Config, RandomNetworkConfig
from audiodd_jax.kernels.random_kernels import Plan
from audiodd_jax.networks import precision, random_conv, winograd
from audiodd_jax.runtime.chunked_map import balanced
from audiodd_jax.runtime.devices import Grid
from audiodd_jax.runtime.memory import memory_of, memory_share


class _Constants(NamedTuple):
    """How a platform's compiler lays out a step.

    Attributes:
      forward: memory of a row's forward pass, in multiples of the first block's
        activations.
      backward: of its forward and backward pass.
      split: of what that needs in addition in float32, whose products a TPU takes from
        several arrays in bfloat16.
      masks: bytes per activation of the first block that the backward pass keeps.
      kept: copies of the features that the backward pass reads.
      batch: copies of the batch's images.
      coreset: of the coreset's, in addition to the state.
      kernels: of the kernels.
      near: bytes of activations that stay in a chip's own memory.
    """

    forward: float
    backward: float
    split: float
    masks: float
    kept: int
    batch: int
    coreset: int
    kernels: int
    near: int


_PLATFORMS = {
    "cpu": _Constants(0.5, 3.6, 0.0, 0.0, 1, 2, 2, 4, 0),
    "tpu": _Constants(1.25, 2.8, 1.0, 1.31, 2, 2, 2, 2, 24 << 20),
    "gpu": _Constants(1.25, 1.6, 0.0, 1.31, 1, 1, 2, 2, 0),
}
# Of a TPU's loop over at most so many networks, the passes of batch and coreset overlap
# where the coreset is taken in chunks.
_FEW_NETWORKS = 4
# Transforms of the tiles of a fast convolution.
_TILES = 15
# XLA removes a loop over a single network, and overlaps more of its body.
_SINGLE = 2.2
# Images, the optimiser's two moments, the initial and the best coreset.
_STATE_COPIES = 5
# Memory of a process before its first step: Python, JAX, compiled programs.
_PROCESS_BYTES = 680 << 20
_LEAST_CHUNK = 8
# Memory of a block with normalisation, in multiples of one without.
_NORMALISED = 1.6


class Sizes(NamedTuple):
    """Sizes that the cost of a run depends on.

    Attributes:
      f: mel bins.
      t: frames.
      c: classes.
      s: spectrograms of the coreset, ``factor`` per stored one.
      b: clips per batch.
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
    """Predicted cost of a run per device.

    Attributes:
      parameters: of one random network.
      features: per clip and network.
      flops: of a step on all devices, counted as direct convolutions and products.
      step_bytes: memory of a step.
      base_bytes: memory outside of steps: data, state, and on CPU the process itself.
      scoring_bytes: memory of scoring, between steps.
      exchanged_bytes: communication volume of a device per step.
    """

    parameters: int
    features: int
    flops: int
    step_bytes: int
    base_bytes: int
    scoring_bytes: int
    exchanged_bytes: int

    def peak_bytes(self, step_bytes: int | None = None) -> int:
        """Peak memory; ``step_bytes`` replaces the prediction for a step."""
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
      clips: training clips.
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
      grid: sizes of the mesh.
      plan: memory plan of the step.
      kind: platform of the devices.
    """
    work = _Work(config, sizes, grid, plan, platform(kind))
    return Cost(
        _parameters((sizes.f, sizes.t), config.network),
        work.d,
        _flops(config, sizes, work.d, plan),
        math.ceil(work.step_bytes()),
        math.ceil(work.base_bytes()),
        math.ceil(work.scoring_bytes()),
        _exchanged(sizes, grid, work.own_n, work.own_b, work.own_s * work.phi, plan),
    )


def platform(name: str) -> str:
    """The platform whose constants are known: ``cpu``, ``tpu``, or ``gpu``."""
    return name if name in ("cpu", "tpu") else "gpu"


class _Work:
    """One device's share of the work, and the memory that it takes."""

    def __init__(self, config: Config, sizes: Sizes, grid: Grid, plan: Plan, kind: str):
        self.config, self.sizes, self.plan, self.kind = config, sizes, plan, kind
        self.constants = _PLATFORMS[kind]
        network, shape = config.network, (sizes.f, sizes.t)
        self.d = random_conv.num_features(shape, network)
        self.pixels = sizes.f * sizes.t
        self.own_b, self.own_s = (-(-n // grid.batch) for n in (sizes.b, sizes.s))
        self.own_n = -(-config.rfad.networks // grid.networks)
        kept = jnp.dtype(precision.dtype(network.precision, jnp.float32)).itemsize
        self.phi = self.d * kept  # bytes of a clip's features
        self.is_float32 = kept == 4
        # CPUs compute in float32 in every precision.
        self.row = 4 * self.pixels * network.width * (1 if kind == "cpu" else kept / 4)

    def at_once(self, rows: int, most: int) -> int:
        """Rows of a chunk; 0: all."""
        if not most or most >= rows or self.kind == "cpu":
            return min(rows, most or rows)
        return balanced(rows, most)

    def forward(self, rows: int, most: int) -> int | float:
        """The forward pass of ``rows`` clips, at most ``most`` at once (0: all)."""
        count = self.at_once(rows, most)
        return self.constants.forward * count * self.row

    def backward(self) -> int | float:
        """The forward and backward pass of the coreset."""
        plan = self.plan
        activations = self.pixels * self.config.network.width
        known = self.constants
        copies = known.backward + (known.split if self.is_float32 else 0)
        found = copies * self.row + known.masks * activations
        found *= self.at_once(self.own_s, plan.coreset_chunk)
        if plan.coreset_chunk and self.kind == "cpu":
            found += self.gathered()
        if self.kind == "cpu" and plan.keeps == "nothing" and self.own_n == 1:
            found += _SINGLE * self.row * min(self.own_b, plan.chunk or self.own_b)
        return found

    def overlap(self) -> bool:
        """Whether the batch's pass and the coreset's are in memory together."""
        in_chunks = 0 < self.plan.coreset_chunk < self.own_s
        return self.kind == "tpu" and in_chunks and self.own_n <= _FEW_NETWORKS

    def gathered(self) -> int:
        """The coreset's features and their gradient, where it is taken in chunks."""
        return 2 * self.own_s * self.d * 4

    def features(self) -> int | float:
        """Features that are stored for the backward pass."""
        plan = self.plan
        if plan.keeps == "nothing":
            return self.own_b * self.phi
        found = self.constants.kept * self.own_n * self.own_b * self.phi
        if plan.coreset_chunk:
            found += self.own_n * self.sizes.s * self.phi
        return found

    def step_bytes(self) -> int | float:
        """Memory of a step."""
        sizes, network = self.sizes, self.config.network
        known = self.constants
        kernels = known.kernels * 4 * sizes.s * (self.own_b + sizes.s)
        copies = known.batch * sizes.b + known.coreset * sizes.s
        parameters = 8 * _parameters((sizes.f, sizes.t), network)
        step = self.features() + kernels + 4 * self.pixels * copies + parameters
        passes = self.backward(), self.forward(self.own_b, self.plan.chunk)
        step += max(0, (sum if self.overlap() else max)(passes) - known.near)
        if self.kind != "cpu" and self.plan.coreset_chunk:
            # Accelerators hold them during the batch's forward pass too.
            step += self.gathered()
        if self.kind == "cpu" and network.width >= winograd.CHANNELS:
            step += _TILES * winograd.TILES * network.width * 4
        return step

    def base_bytes(self) -> int | float:
        """Memory of data, state, and on CPU of the process itself."""
        sizes = self.sizes
        data = self.pixels * (2 * sizes.train + 4 * sizes.scored)
        state = 4 * self.pixels * sizes.s * _STATE_COPIES
        return (_PROCESS_BYTES if self.kind == "cpu" else 0) + data + state

    def scoring_bytes(self) -> int | float:
        """Memory of validation and test scores."""
        sizes, scoring = self.sizes, self.config.evaluation
        width = self.config.network.width
        wider = (scoring.width or width) / width
        features = 4 * sizes.s * (sizes.scored + self.d * wider)
        return wider * self.forward(sizes.scored, scoring.batch_size) + features


def _parameters(shape: tuple[int, int], config: RandomNetworkConfig) -> int:
    """Number of parameters of one random network."""
    w, channels, total = config.width, 1, 0
    for _ in range(config.depth):
        total += (9 * channels + 1) * w
        channels = w
    if config.readout == "dense":
        f, t = random_conv.feature_map_shape(shape, config)
        total += (w * f * t + 1) * config.output_dim
    return total


def _flops(config: Config, sizes: Sizes, d: int, plan: Plan) -> int:
    """Operations of a step; a multiply-add counts as two."""
    network, (f, t) = config.network, (sizes.f, sizes.t)
    one, channels = 0, 1
    for _ in range(network.depth):
        one += 2 * 9 * channels * network.width * f * t
        f, t, channels = f // 2, t // 2, network.width
    if network.readout == "dense":
        one += 2 * f * t * network.width * d
    again = plan.keeps == "nothing"
    # The coreset: forward, recomputed in the backward pass (twice in chunks whose
    # features are not stored), and the gradient.
    passes = 3 + (again and plan.coreset_chunk > 0)
    rows = sizes.b * (1 + again) + sizes.s * passes
    products = 2 * d * sizes.s * (2 * sizes.b + 3 * sizes.s)
    solve = sizes.s**3 + 6 * sizes.s * sizes.c * (sizes.b + sizes.s)
    return config.rfad.networks * (rows * one + products) + solve


def _exchanged(
    sizes: Sizes, grid: Grid, own_n: int, own_b: int, phi_s: int, plan: Plan
) -> int:
    """Communication volume of a device per step, in bytes."""
    size, s = 0, sizes.s
    if grid.networks > 1:
        size += 4 * s * (own_b + s)
    if grid.networks * grid.batch > 1:
        size += 4 * s * sizes.f * sizes.t
    if grid.batch > 1:
        size += 4 * (s * sizes.c + 3)
        # The coreset's features are gathered, again in the backward pass, and their
        # gradients are scattered.
        again = plan.keeps == "nothing" or not plan.coreset_chunk
        size += own_n * phi_s * (1 + again + grid.batch)
    return size


def choose(
    config: Config,
    sizes: Sizes,
    grid: Grid,
    device: jax.Device | None = None,
    *,
    platform: str | None = None,
    memory: int | None = None,
) -> Plan:
    """The plan with the largest chunks that is predicted to fit the device.

    The smallest plan if none fits. ``config.network.chunk`` sets the chunks.

    Args:
      config: of the run.
      sizes: of its data.
      grid: sizes of the mesh.
      device: of the mesh; None: the first local one.
      platform: of devices that are not there, instead of ``device``.
      memory: theirs, in bytes.
    """
    config = as_random(config)
    if platform is None:
        device = device or jax.local_devices()[0]
        platform, memory = device.platform, memory_of(device)
    budget = memory_share(platform) * memory
    chunk = config.network.chunk
    plans = [
        Plan(*chunks, keeps)
        for keeps in ("features", "nothing")
        for chunks in ([(chunk, chunk)] if chunk else _chunks(sizes.b, sizes.s))
    ]
    for plan in plans:
        found = predict(config, sizes, grid, plan, platform)
        if found.peak_bytes() <= budget:
            return plan
    return plans[-1]


def as_random(config: Config) -> Config:
    """The settings with random networks that cost what this method's networks cost.

    FRePo's have normalisation, which stores the convolutions' outputs: the width is
    that of random networks that take as much memory.
    """
    if config.method != "frepo":
        return config
    own = config.frepo
    network = dataclasses.replace(
        config.network,
        depth=own.depth,
        width=math.ceil((1 if own.norm == "none" else _NORMALISED) * own.width),
        readout="flatten",
        precision="float32",
    )
    evaluation = dataclasses.replace(
        config.evaluation, width=config.evaluation.width or config.network.width
    )
    rfad = dataclasses.replace(config.rfad, networks=1)
    return dataclasses.replace(
        config, network=network, evaluation=evaluation, rfad=rfad
    )


def _chunks(b: int, s: int) -> list[tuple[int, int]]:
    """Chunks of batch and coreset, from the largest to the smallest."""
    found, chunk = [(0, 0)], b
    while chunk > _LEAST_CHUNK:
        chunk //= 2
        found.append((chunk, 0))
        # A row of the coreset takes several times the memory of a row of the batch.
        found.append((chunk, chunk // 4 if chunk // 4 < s else 0))
    return [(a, c) for a, c in found if (a >= _LEAST_CHUNK or not a) and c != 1]
