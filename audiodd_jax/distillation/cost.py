"""Memory, arithmetic and communication volume of a run, and its memory plan.

A plan is chosen by arithmetic, before anything is compiled: asking the compiler instead
(``forecast``) would take seconds at every start. The constants are fitted to
the compilers' memory analysis of steps for CPUs, TPUs (v5e) and GPUs (H100;
experiments/RESULTS.md). On CPU a block's convolution and pooling are one loop, while
accelerators write the convolution's output to memory.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from audiodd_jax.config import Config, RandomNetworkConfig
from audiodd_jax.config.packing import Packing
from audiodd_jax.kernels.random_kernels import Plan
from audiodd_jax.networks import random_conv, winograd
from audiodd_jax.runtime.devices import Grid
from audiodd_jax.runtime.memory import balanced, memory_of, memory_share


class _Constants(NamedTuple):
    """How a platform's compiler lays out a step.

    Attributes:
      forward: memory of a row's forward pass, in multiples of the first block's
        activations; ``backward`` is that of both passes.
      split: extra memory of that in float32, whose products a TPU computes from several
        arrays in bfloat16.
      masks: bytes per activation of the first block that the backward pass keeps.
      features: copies of the features that the backward pass reads.
      batch: copies of the batch's images; ``coreset``, of the coreset's, in addition to
        the state; ``kernels``, of the kernels.
      near: bytes of activations that stay in a chip's own memory.
    """

    forward: float
    backward: float
    split: float
    masks: float
    features: int
    batch: int
    coreset: int
    kernels: int
    near: int


_PLATFORMS = {
    "cpu": _Constants(0.5, 3.6, 0.0, 0.0, 1, 2, 2, 4, 0),
    "tpu": _Constants(1.25, 2.8, 1.0, 1.31, 2, 2, 2, 2, 24 << 20),
    "gpu": _Constants(1.25, 1.6, 0.0, 1.31, 1, 1, 2, 2, 0),
}
# In a TPU's loop over at most this many networks, the passes of batch and coreset
# overlap where the coreset is processed in chunks.
_FEW_NETWORKS = 4
# Transforms of the tiles of a fast convolution.
_TILES = 15
# XLA removes a loop over a single network, and overlaps more of its body.
_SINGLE = 2.2
# Images, the optimiser's two moments, the initial and the best coreset.
_STATE_COPIES = 5
# Memory of a process before its first step: Python, JAX, compiled programs.
_PROCESS_BYTES = 680 << 20
# Memory of a block with normalisation, in multiples of one without.
_NORMALISED = 1.6
_LEAST_CHUNK = 8


class Sizes(NamedTuple):
    """Sizes that the cost of a run depends on.

    Attributes:
      f: mel bins.
      t: frames.
      c: classes.
      s: spectrograms of the coreset, unpacked.
      b: clips per batch.
      train: training clips on the device.
      scored: validation and test clips on the device.
      per_class: stored spectrograms of each class; empty: the same number of each.
    """

    f: int
    t: int
    c: int
    s: int
    b: int
    train: int
    scored: int
    per_class: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """``(f, t)`` of a spectrogram."""
        return self.f, self.t


def sizes_of(
    config: Config,
    shape: tuple[int, int],
    stored: Int[np.ndarray, " c"],
    clips: int,
    scored: int,
) -> Sizes:
    """Returns the sizes of a run on ``clips`` training clips.

    ``stored`` are the spectrograms of each class (``coreset.sizes``); ``scored`` counts
    validation and test clips.
    """
    per_class = tuple(stored.tolist())
    on_device = 0 if config.data.storage == "host" else clips
    s = sum(per_class) * Packing.parse(config.coreset.factor).per_image
    b = min(config.loop.batch_size, clips)
    return Sizes(*shape, len(per_class), s, b, on_device, scored, per_class)


class Problem(NamedTuple):
    """Sizes and settings that the cost of a run depends on.

    ``networks`` are those of a step. To score a coreset, networks of ``scoring_width``
    process ``scoring_chunk`` clips at once.
    """

    sizes: Sizes
    network: RandomNetworkConfig
    networks: int
    scoring_width: int
    scoring_chunk: int


def problem_of(config: Config, sizes: Sizes) -> Problem:
    """Returns the problem with random networks that cost what the method's cost.

    Views count as spectrograms; what their teacher costs is not counted. FRePo trains
    one network per step. Its normalisation stores the convolutions'
    outputs, so the width is that of random networks that take as much memory.
    """
    network, networks = config.network, config.rfad.networks
    if config.is_aligned:
        pieces = Packing.parse(config.coreset.factor).pieces
        sizes = sizes._replace(s=sizes.s * config.rfad.views_of_each(pieces))
    scoring = config.evaluation
    if config.method == "frepo":
        trained, networks = config.frepo, 1
        memory = 1 if trained.norm == "none" else _NORMALISED
        network = dataclasses.replace(
            network,
            depth=trained.depth,
            width=math.ceil(memory * trained.width),
            readout="flatten",
            precision="float32",
        )
    width = scoring.width or config.network.width
    return Problem(sizes, network, networks, width, scoring.batch_size)


class Cost(NamedTuple):
    """Predicted cost of a run per device.

    Attributes:
      parameters: number of parameters of one random network.
      features: number of features per clip and network.
      flops: operations of a step on all devices, counted as direct convolutions and
        products.
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


def choose_plan(problem: Problem, grid: Grid, platform: str, memory: int) -> Plan:
    """Returns the plan with the largest chunks that fit devices of ``memory`` bytes.

    The smallest plan if none fits. ``network.chunk`` sets the chunks.
    """
    budget = memory_share(platform) * memory
    b, s, chunk = problem.sizes.b, problem.sizes.s, problem.network.chunk
    chunks = [(chunk, chunk)]
    if not chunk:
        chunks, chunk = [(0, 0)], b
        while chunk // 2 >= _LEAST_CHUNK:
            chunk //= 2
            chunks.append((chunk, 0))
            # A row of the coreset takes several times the memory of a row of the batch.
            if chunk // 4 < s:
                chunks.append((chunk, chunk // 4))
    plans = [Plan(*each, keeps) for keeps in ("features", "nothing") for each in chunks]
    for plan in plans:
        if predict(problem, grid, plan, platform).peak_bytes() <= budget:
            return plan
    return plans[-1]


def plan_for_device(
    problem: Problem, grid: Grid, device: jax.Device | None = None
) -> Plan:
    """Returns the plan for a device; None: the first local one."""
    device = device or jax.local_devices()[0]
    return choose_plan(problem, grid, device.platform, memory_of(device))


def predict(problem: Problem, grid: Grid, plan: Plan, platform: str = "cpu") -> Cost:
    """Predicts the cost of a run on a grid of devices of a platform."""
    share, sizes = _Share(problem, grid, plan, platform), problem.sizes
    data = share.pixels * (2 * sizes.train + 4 * sizes.scored)
    state = 4 * share.pixels * sizes.s * _STATE_COPIES
    wider = problem.scoring_width / problem.network.width
    scored = 4 * sizes.s * (sizes.scored + share.num_features * wider)
    scoring = wider * share.forward(sizes.scored, problem.scoring_chunk) + scored
    return Cost(
        _parameters(sizes.shape, problem.network),
        share.num_features,
        _flops(problem, share.num_features, plan),
        math.ceil(share.step_bytes()),
        math.ceil((_PROCESS_BYTES if share.is_cpu else 0) + data + state),
        math.ceil(scoring),
        _exchanged(share, grid),
    )


class _Share:
    """One device's share of the work, and the memory that it takes.

    A row is a clip of the batch or a spectrogram of the coreset.
    """

    def __init__(self, problem: Problem, grid: Grid, plan: Plan, platform: str):
        self.problem, self.sizes, self.plan = problem, problem.sizes, plan
        self.platform = platform if platform in _PLATFORMS else "gpu"
        self.constants = _PLATFORMS[self.platform]
        self.is_cpu = self.platform == "cpu"
        network, sizes = problem.network, problem.sizes
        self.num_features = random_conv.num_features(sizes.shape, network)
        self.pixels = sizes.f * sizes.t
        self.batch = math.ceil(sizes.b / grid.batch)
        self.coreset = math.ceil(sizes.s / grid.batch)
        self.networks = math.ceil(problem.networks / grid.networks)
        precision = random_conv.PRECISIONS[network.precision]
        itemsize = precision.dtype(jnp.float32).itemsize
        self.is_float32 = itemsize == 4
        self.feature_bytes = self.num_features * itemsize  # of a row
        # CPUs compute in float32 in every precision.
        compared = 1 if self.is_cpu else itemsize / 4
        self.row_bytes = 4 * self.pixels * network.width * compared
        # The features of a coreset in chunks, and their gradient.
        self.gathered_bytes = 2 * self.coreset * self.num_features * 4

    def at_once(self, rows: int, chunk: int) -> int:
        """Returns how many of ``rows`` a chunk holds; 0: all."""
        if not chunk or chunk >= rows or self.is_cpu:
            return min(rows, chunk or rows)
        return balanced(rows, chunk)

    def forward(self, rows: int, chunk: int) -> int | float:
        """Memory of the forward pass of ``rows``, in chunks."""
        return self.constants.forward * self.at_once(rows, chunk) * self.row_bytes

    def backward(self) -> int | float:
        """Memory of the forward and backward pass of the coreset."""
        plan, constants = self.plan, self.constants
        activations = self.pixels * self.problem.network.width
        copies = constants.backward + (constants.split if self.is_float32 else 0)
        row = copies * self.row_bytes + constants.masks * activations
        total = row * self.at_once(self.coreset, plan.coreset_chunk)
        if plan.coreset_chunk and self.is_cpu:
            total += self.gathered_bytes
        if self.is_cpu and plan.keeps == "nothing" and self.networks == 1:
            rows = min(self.batch, plan.chunk or self.batch)
            total += _SINGLE * self.row_bytes * rows
        return total

    def features(self) -> int | float:
        """Memory of the features that are stored for the backward pass."""
        plan = self.plan
        if plan.keeps == "nothing":
            return self.batch * self.feature_bytes
        rows = self.constants.features * self.networks * self.batch
        total = rows * self.feature_bytes
        if plan.coreset_chunk:
            total += self.networks * self.sizes.s * self.feature_bytes
        return total

    def step_bytes(self) -> int | float:
        """Memory of a step."""
        sizes, network, plan = self.sizes, self.problem.network, self.plan
        constants = self.constants
        kernels = constants.kernels * 4 * sizes.s * (self.batch + sizes.s)
        copies = constants.batch * sizes.b + constants.coreset * sizes.s
        parameters = 8 * _parameters(sizes.shape, network)
        step = self.features() + kernels + 4 * self.pixels * copies + parameters
        passes = self.backward(), self.forward(self.batch, plan.chunk)
        in_chunks = 0 < plan.coreset_chunk < self.coreset
        is_few = self.networks <= _FEW_NETWORKS
        has_overlap = self.platform == "tpu" and in_chunks and is_few
        activations = sum(passes) if has_overlap else max(passes)
        step += max(0, activations - constants.near)
        if not self.is_cpu and plan.coreset_chunk:
            # Accelerators hold them during the batch's forward pass too.
            step += self.gathered_bytes
        if self.is_cpu and network.width >= winograd.CHANNELS:
            step += _TILES * winograd.TILES * network.width * 4
        return step


def _parameters(shape: tuple[int, int], network: RandomNetworkConfig) -> int:
    """Returns the number of parameters of one random network."""
    w, channels, total = network.width, 1, 0
    for _ in range(network.depth):
        total += (9 * channels + 1) * w
        channels = w
    if network.readout == "dense":
        f, t = random_conv.feature_map_shape(shape, network)
        total += (w * f * t + 1) * network.output_dim
    return total


def _flops(problem: Problem, num_features: int, plan: Plan) -> int:
    """Returns the operations of a step; a multiply-add counts as two."""
    network, sizes = problem.network, problem.sizes
    f, t = sizes.shape
    row, channels = 0, 1
    for _ in range(network.depth):
        row += 2 * 9 * channels * network.width * f * t
        f, t, channels = f // 2, t // 2, network.width
    if network.readout == "dense":
        row += 2 * f * t * network.width * num_features
    again = plan.keeps == "nothing"
    # The coreset: forward, recomputed in the backward pass (twice in chunks whose
    # features are not stored), and the gradient.
    passes = 3 + (again and plan.coreset_chunk > 0)
    rows = sizes.b * (1 + again) + sizes.s * passes
    products = 2 * num_features * sizes.s * (2 * sizes.b + 3 * sizes.s)
    solve = sizes.s**3 + 6 * sizes.s * sizes.c * (sizes.b + sizes.s)
    return problem.networks * (rows * row + products) + solve


def _exchanged(share: _Share, grid: Grid) -> int:
    """Returns the communication volume of a device per step, in bytes."""
    total, sizes, plan = 0, share.sizes, share.plan
    s = sizes.s
    if grid.networks > 1:
        total += 4 * s * (share.batch + s)
    if grid.networks * grid.batch > 1:
        total += 4 * s * share.pixels
    if grid.batch > 1:
        total += 4 * (s * sizes.c + 3)
        # The coreset's features are gathered, again in the backward pass, and their
        # gradients are scattered.
        again = plan.keeps == "nothing" or not plan.coreset_chunk
        features = share.networks * share.coreset * share.feature_bytes
        total += features * (1 + again + grid.batch)
    return total
