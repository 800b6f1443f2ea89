"""Measures the speed of an RFAD step, and prints Markdown tables.

    pip install "audiodd_jax[exact,benchmark]" && python experiments/benchmarks/step.py

- Our step against a plain PyTorch step of the same shapes in float32, in alternating
  turns, over widths, networks, batches and spectrogram sizes. Both draw a batch, draw
  fresh networks, form the kernels, solve, back-propagate into images and labels, and
  take an AdaBelief step. The table also has our rate of arithmetic, counted as plain
  convolutions (a fast convolution does less), as a share of the rate of the largest
  matrix product on this machine.
- Our step against a step of KIP with the exact kernel (``--exact``):

    python experiments/benchmarks/step.py --case= --devices= --exact=32,2,32,10,16,16
- Our step on 1, 2, 4 and 8 devices (``--devices``). On a CPU the devices are simulated
  and share its cores, so that only the exchanged bytes are meaningful.

A case is WIDTH,NETWORKS,BATCH,SAMPLES,BINS,FRAMES[,CHUNK]. Medians are compared. Peak
memory is measured in a process that does nothing else.
"""

import dataclasses
import json
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from alternate import measure

import audiodd_jax
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation import cost, registry, steps
from audiodd_jax.distillation.method import Context
from audiodd_jax.features import batches
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.runtime import devices

_CASES = flags.DEFINE_multi_string(
    "case",
    [
        "32,2,1280,100,32,32",
        "64,2,1280,100,32,32",
        "128,2,1280,100,32,32",
        "256,2,1280,100,32,32",
        "64,1,1280,100,32,32",
        "64,8,1280,100,32,32",
        "64,2,512,100,32,32",
        "64,2,512,100,32,64",
        "64,2,512,50,64,128",
    ],
    "WIDTH,NETWORKS,BATCH,SAMPLES,BINS,FRAMES[,CHUNK] against PyTorch; empty: none",
)
_EXACT = flags.DEFINE_multi_string(
    "exact", ["64,2,2,1,64,64"], "cases against KIP; empty: none"
)
_DEVICES = flags.DEFINE_list("devices", ["1", "2", "4", "8"], "empty: none")
_SCALED = flags.DEFINE_string("scaled", "64,8,512,50,32,32", "case for --devices")
_PRECISION = flags.DEFINE_string("precision", "float32", "precision of our features")
_STEPS = flags.DEFINE_integer("steps", 2, "steps per turn")
_TURNS = flags.DEFINE_integer("turns", 5, "turns of each contender")
_ALONE = flags.DEFINE_string("alone", "", "run only our step of this case; print JSON")
_COUNT = flags.DEFINE_integer("count", 1, "number of devices for --alone")

CLASSES = 10
SETTINGS = {"rate": 1e-2, "regularizer": 5e-3, "bias_std": 0.1}


@dataclasses.dataclass(frozen=True)
class Case:
    """The sizes of a step."""

    width: int
    networks: int
    batch: int
    samples: int
    bins: int
    frames: int
    chunk: int = 0

    @classmethod
    def parse(cls, text):
        return cls(*map(int, text.split(",")))

    def arrays(self):
        """Returns batch, labels, coreset and its labels, the same for everyone."""
        rng = np.random.default_rng(0)
        shape = (self.bins, self.frames, 1)
        images = lambda count: rng.standard_normal((count, *shape), np.float32)
        labels = np.arange(self.batch, dtype=np.int32) % CLASSES
        targets = np.eye(CLASSES, dtype=np.float32) - 1 / CLASSES
        support = targets[np.arange(self.samples) % CLASSES]
        return images(self.batch), labels, images(self.samples), support

    def config(self):
        return audiodd_jax.for_dataset(
            "tones",
            network__width=self.width,
            network__readout="flatten",
            network__chunk=self.chunk,
            network__precision=_PRECISION.value,
            rfad__networks=self.networks,
            rfad__regularizer=SETTINGS["regularizer"],
            loop__batch_size=self.batch,
            optimizer__learning_rate=SETTINGS["rate"],
            optimizer__schedule="constant",
        )

    def sizes(self):
        # Clips are float32 here and float16 in a run, so they count twice.
        counts = (CLASSES, self.samples, self.batch, 2 * self.batch, 0)
        return cost.Sizes(self.bins, self.frames, *counts)

    def problem(self):
        return cost.problem_of(self.config(), self.sizes())

    def plan(self, grid):
        return cost.plan_for_device(self.problem(), grid)

    def cost(self, grid):
        return cost.predict(self.problem(), grid, self.plan(grid))

    def cells(self):
        size = f"{self.bins}x{self.frames}"
        return (
            f"{self.width} | {self.networks} | {self.batch} | {self.samples} | {size}"
        )


def ours(case, mesh=None, name="rfad"):
    """Returns a turn of steps, as the loop runs them, and the coreset after it."""
    x, labels, x_s, y_s = case.arrays()
    mesh = mesh or devices.make_mesh(devices=jax.devices()[:1])
    config = case.config()
    zeros = np.zeros(case.bins, np.float32)
    stats = Normalization(zeros, zeros + 1)
    plan = case.plan(devices.grid_of(mesh))
    context = Context(case.sizes(), stats, mesh, plan)
    method = registry.get_method(name)(config, context)
    data = Clips(jnp.asarray(x), jnp.asarray(labels))
    arrays = CoresetArrays(jnp.asarray(x_s), jnp.asarray(y_s), jnp.float32(0))
    draw = batches.uniform(case.batch)
    chunk = steps.make_chunk(method, draw, config.augment, stats, mesh=mesh)
    state = devices.replicate(method.init(jax.random.key(0), arrays), mesh)
    key, data = devices.replicate((jax.random.key(1), data), mesh)

    def turn():
        nonlocal state
        state, metrics = chunk(state, data, _STEPS.value, key)
        return float(metrics["loss"])

    return turn, lambda: np.asarray(method.coreset(state).images)


def many(step):
    return lambda: [step() for _ in range(_STEPS.value)][-1]


def peak_gigaflops():
    """Measures the GFLOP/s of a float32 matrix product, the best of several turns."""
    best = 0.0
    dot = jax.jit(lambda a, b: jnp.dot(a, b, precision="highest"))
    for n in (1024, 2048, 4096):
        a = jax.random.normal(jax.random.key(0), (n, n))
        dot(a, a).block_until_ready()
        for _ in range(5):
            began = time.perf_counter()
            dot(a, a).block_until_ready()
            best = max(best, 2 * n**3 / (time.perf_counter() - began) / 1e9)
    return best


def alone(case, count=1):
    """Returns the measurements of a process that takes only our steps."""
    command = [sys.executable, __file__, f"--alone={case}", f"--count={count}"]
    command += [f"--{f.name}={f.value}" for f in (_STEPS, _TURNS, _PRECISION)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def tell_alone(case):
    if _COUNT.value > 1:
        jax.config.update("jax_num_cpu_devices", _COUNT.value)
    mesh = devices.make_mesh(case.networks, jax.devices()[: _COUNT.value])
    turn, coreset = ours(case, mesh)
    turn()
    images, seconds = coreset().tolist(), []
    for _ in range(_TURNS.value):
        began = time.perf_counter()
        turn()
        seconds.append((time.perf_counter() - began) / _STEPS.value)
    # ru_maxrss starts from the parent's value on Linux; VmHWM is the process's own.
    with open("/proc/self/status") as file:
        peak = next(line for line in file if line.startswith("VmHWM"))
    megabytes = int(peak.split()[1]) / 1e3
    grid = devices.grid_of(mesh)
    exchanged = case.cost(grid).exchanged_bytes
    found = {"seconds": statistics.median(seconds), "megabytes": megabytes}
    print(json.dumps({**found, "exchanged": exchanged, "grid": grid, "images": images}))


def against_pytorch(cases):
    import torch
    import torch_rfad

    peak = peak_gigaflops()
    print(f"torch {torch.__version__}; largest matrix product {peak:.0f} GFLOP/s\n")
    print(
        "| width | networks | batch | samples | size | ours, s | PyTorch, s "
        "| our speed-up | GFLOP/s | share of peak | peak MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for text in cases:
        case = Case.parse(text)
        sizes = {"width": case.width, "networks": case.networks, **SETTINGS}
        theirs = torch_rfad.make_step(*case.arrays(), **sizes)
        both = {"ours": ours(case)[0], "PyTorch": many(theirs)}
        times = measure(both, _TURNS.value, _STEPS.value)
        a, b = (statistics.median(seconds) for seconds in times.values())
        rate = case.cost(devices.Grid()).flops / a / 1e9
        memory = alone(text)["megabytes"]
        print(
            f"| {case.cells()} | {a:.3f} | {b:.3f} | {b / a:.2f} times | {rate:.0f} "
            f"| {100 * rate / peak:.0f} % | {memory:.0f} |",
            flush=True,
        )


def against_exact(cases):
    print(
        "\n| width | networks | batch | samples | size | RFAD, s | KIP, s | RFAD is "
        "faster | KIP, ms per pair |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for text in cases:
        case = Case.parse(text)
        both = {"RFAD": ours(case)[0], "KIP": ours(case, name="kip")[0]}
        times = measure(both, _TURNS.value, _STEPS.value)
        a, b = (statistics.median(seconds) for seconds in times.values())
        pairs = case.samples * (case.batch + case.samples)
        print(
            f"| {case.cells()} | {a:.4f} | {b:.3f} | {b / a:.0f} times "
            f"| {1e3 * b / pairs:.1f} |",
            flush=True,
        )


def on_devices(counts, text):
    print(f"\n{text} on devices; simulated ones share {jax.devices()[0].device_kind}\n")
    print(
        "| devices | networks x batch | s per step | MB exchanged | distance to one |"
    )
    print("|---|---|---|---|---|")
    first = None
    for count in map(int, counts):
        found = alone(text, count)
        images = np.array(found["images"])
        first = images if first is None else first
        distance = np.linalg.norm(images - first) / np.linalg.norm(first)
        print(
            f"| {count} | {' x '.join(map(str, found['grid']))} "
            f"| {found['seconds']:.3f} | {found['exchanged'] / 1e6:.2f} "
            f"| {distance:.1e} |",
            flush=True,
        )


def main(_):
    logging.set_verbosity(logging.WARNING)
    if _ALONE.value:
        tell_alone(Case.parse(_ALONE.value))
        return
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, ", end="")
    print(f"{_PRECISION.value}, {_TURNS.value} turns of {_STEPS.value} steps, ", end="")
    if any(_CASES.value):
        against_pytorch(_CASES.value)
    if any(_EXACT.value):
        against_exact(_EXACT.value)
    if any(_DEVICES.value):
        on_devices(_DEVICES.value, _SCALED.value)


if __name__ == "__main__":
    app.run(main)
