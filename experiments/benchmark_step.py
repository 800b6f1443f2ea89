"""One RFAD step, ours against a plain PyTorch one: same shapes, same machine, by turns.

    pip install torch && python experiments/benchmark_step.py

Both draw a batch, draw fresh networks, form the kernels, solve, back-propagate into
images and labels, and take an AdaBelief step, in float32. The turns alternate, each of
``--steps`` steps; medians are compared. Our peak memory is that of a process that does
nothing else.
"""

import resource
import statistics
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from turns import measure

import audiodd_jax
from audiodd_jax.distillation import loop, rfad
from audiodd_jax.distillation.coreset import CoresetArrays
from audiodd_jax.features.normalize import Normalization
from audiodd_jax.features.prepared import Split

_WIDTH = flags.DEFINE_integer("width", 64, "channels of a network")
_NETWORKS = flags.DEFINE_integer("networks", 2, "networks a step")
_BATCH = flags.DEFINE_integer("batch", 1280, "real clips a step")
_SAMPLES = flags.DEFINE_integer("samples", 100, "coreset spectrograms")
_BINS = flags.DEFINE_integer("bins", 32, "mel bins")
_FRAMES = flags.DEFINE_integer("frames", 32, "frames")
_STEPS = flags.DEFINE_integer("steps", 3, "steps a turn")
_TURNS = flags.DEFINE_integer("turns", 7, "turns of each")
_MEMORY = flags.DEFINE_bool("memory_only", False, "run ours alone; print its peak MB")

CLASSES = 10
LEARNING_RATE, REGULARIZER, BIAS_STD = 1e-2, 5e-3, 0.1


def problem():
    """The same arrays for both: batch images, labels, coreset images, its labels."""
    rng = np.random.default_rng(0)
    images = lambda count: rng.standard_normal(
        (count, _BINS.value, _FRAMES.value, 1), np.float32
    )
    labels = np.arange(_BATCH.value, dtype=np.int32) % CLASSES
    targets = np.eye(CLASSES, dtype=np.float32) - 1 / CLASSES
    classes = np.arange(_SAMPLES.value) % CLASSES
    return images(_BATCH.value), labels, images(_SAMPLES.value), targets[classes]


def ours():
    """A turn of our steps, as the loop runs them."""
    x, labels, x_s, y_s = problem()
    config = audiodd_jax.for_dataset(
        "tones",
        network__width=_WIDTH.value,
        network__readout="flatten",
        rfad__networks=_NETWORKS.value,
        rfad__regularizer=REGULARIZER,
        loop__batch_size=_BATCH.value,
        optimizer__learning_rate=LEARNING_RATE,
        optimizer__schedule="constant",
    )
    method = rfad.make(config)
    data = Split(jnp.asarray(x), jnp.asarray(labels))
    arrays = CoresetArrays(jnp.asarray(x_s), jnp.asarray(y_s), jnp.float32(0))
    stats = Normalization(
        np.zeros(_BINS.value, np.float32), np.ones(_BINS.value, np.float32)
    )
    chunk = loop.make_chunk(method, jax.random.key(1), stats, config)
    state = method.init(jax.random.key(0), arrays)

    def turn():
        nonlocal state
        state, metrics = chunk(state, data, _STEPS.value)
        return float(metrics["loss"])

    return turn


def pytorch():
    """A turn of the plain PyTorch steps."""
    import torch
    from torch.nn import functional

    x, labels, x_s, y_s = problem()
    nchw = lambda a: torch.tensor(np.ascontiguousarray(a.transpose(0, 3, 1, 2)))
    data, images = nchw(x), nchw(x_s).requires_grad_()
    y_data = functional.one_hot(torch.tensor(labels).long(), CLASSES) - 1 / CLASSES
    y = torch.tensor(y_s).requires_grad_()
    moments = [[torch.zeros_like(p), torch.zeros_like(p)] for p in (images, y)]
    count = 0

    def network():
        layers, channels = [], 1
        for _ in range(3):
            kernel = torch.randn(_WIDTH.value, channels, 3, 3)
            std = (2 / (9 * channels)) ** 0.5
            layers.append((std * kernel, BIAS_STD * torch.randn(_WIDTH.value)))
            channels = _WIDTH.value
        return layers

    def features(layers, x):
        for kernel, bias in layers:
            x = functional.relu(functional.conv2d(x, kernel, bias, padding=1))
            x = functional.avg_pool2d(x, 2)
        return x.flatten(1)

    def adabelief(param, grad, state):
        mean, spread = state
        mean.mul_(0.9).add_(grad, alpha=0.1)
        spread.mul_(0.999).add_((grad - mean) ** 2 + 1e-16 / 0.001, alpha=0.001)
        m, s = mean / (1 - 0.9**count), spread / (1 - 0.999**count)
        param.sub_(LEARNING_RATE * m / (s.sqrt() + 1e-16))

    def step():
        nonlocal count
        count += 1
        order = torch.randperm(_BATCH.value)
        x_b, y_b = data[order], y_data[order]
        networks = [network() for _ in range(_NETWORKS.value)]
        with torch.no_grad():
            phi_b = torch.cat([features(n, x_b) for n in networks], 1)
        phi_s = torch.cat([features(n, images) for n in networks], 1)
        d = phi_s.shape[1]
        k_bs = 2 / d * phi_b @ phi_s.T + BIAS_STD**2
        k_ss = 2 / d * phi_s @ phi_s.T + BIAS_STD**2
        size = k_ss.shape[0]
        ridge = REGULARIZER * torch.trace(k_ss) / size * torch.eye(size)
        predictions = k_bs @ torch.linalg.solve(k_ss + ridge, y)
        loss = 0.5 * ((y_b - predictions) ** 2).mean()
        grads = torch.autograd.grad(loss, (images, y))
        with torch.no_grad():
            for param, grad, state in zip((images, y), grads, moments, strict=True):
                adabelief(param, grad, state)
        return loss.item()

    return lambda: [step() for _ in range(_STEPS.value)][-1]


def peak_megabytes():
    """Peak memory of a process that takes our steps alone."""
    command = [sys.executable, __file__, "--memory_only"]
    command += [f"--{f.name}={f.value}" for f in (_WIDTH, _NETWORKS, _BATCH)]
    command += [f"--{f.name}={f.value}" for f in (_SAMPLES, _BINS, _FRAMES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main(_):
    logging.set_verbosity(logging.WARNING)
    if _MEMORY.value:
        ours()()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
        return
    both = {"ours": ours(), "PyTorch": pytorch()}
    times = measure(both, _TURNS.value, _STEPS.value)
    print(
        f"width {_WIDTH.value}, {_NETWORKS.value} networks, batch {_BATCH.value}, "
        f"{_SAMPLES.value} coreset samples of {_BINS.value}x{_FRAMES.value}, "
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}\n"
    )
    print("| step | median s | fastest s | slowest s |")
    print("|---|---|---|---|")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"| {name} | {median:.3f} | {min(seconds):.3f} | {max(seconds):.3f} |")
    medians = [statistics.median(seconds) for seconds in times.values()]
    print(f"\nours is {medians[1] / medians[0]:.2f} times as fast;", end=" ")
    print(f"peak memory of our process {peak_megabytes():.0f} MB")


if __name__ == "__main__":
    app.run(main)
