"""Measures Monte Carlo passes per second over a pool, against a plain PyTorch loop.

    pip install torch && python experiments/benchmarks/acquisition.py

Both score every clip of the pool by BALD, from ``--passes`` passes of the default
ConvNet with dropout. Each turn scores a part of the pool. Turns alternate, and medians
are compared. Before that, separate processes measure the peak memory of our scoring
with increasing numbers of passes, and for 100,000 clips with a tiny network.
"""

import resource
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
from audiodd_jax.active_learning import acquisition, monte_carlo
from audiodd_jax.config import presets
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.networks import models
from audiodd_jax.networks.models import Network

_CLIPS = flags.DEFINE_integer("clips", 10_000, "clips of the pool")
_PASSES = flags.DEFINE_integer("passes", 20, "Monte Carlo passes")
_WIDTH = flags.DEFINE_integer("width", 64, "channels")
_DEPTH = flags.DEFINE_integer("depth", 4, "blocks")
_BINS = flags.DEFINE_integer("bins", 64, "mel bins")
_FRAMES = flags.DEFINE_integer("frames", 64, "frames")
_CHUNK = flags.DEFINE_integer("chunk", 0, "clips at once; 0: our default")
_BATCH = flags.DEFINE_integer("batch", 128, "clips at once for PyTorch")
_PLACE = flags.DEFINE_enum(
    "place", "everywhere", ["everywhere", "head"], "place of the dropout, for both"
)
_TURNS = flags.DEFINE_integer(
    "turns", 20, "turns of each contender, one part of the pool each"
)
_SPEED = flags.DEFINE_bool("speed", True, "compare speeds")
_MEMORY = flags.DEFINE_bool("memory", True, "measure the peak memory of our scoring")
_ALONE = flags.DEFINE_bool("alone", False, "score once and print the peak memory")

CLASSES, DROPOUT = 10, 0.2
KEY = jax.random.key(0)


def config():
    """Returns the settings of the default ConvNet and of the scoring."""
    changes = {"active__chunk": _CHUNK.value} if _CHUNK.value else {}
    return presets.for_active(
        audiodd_jax.for_dataset("tones"),
        "convnet",
        model__width=_WIDTH.value,
        model__depth=_DEPTH.value,
        model__dropout=DROPOUT,
        model__dropout_place=_PLACE.value,
        model__head="random",
        **changes,
    )


def features():
    """Generates clips in the cache's format, a few at a time."""
    rng = np.random.default_rng(0)
    found = np.empty((_CLIPS.value, _BINS.value, _FRAMES.value), np.float16)
    for start in range(0, len(found), 1000):
        part = found[start : start + 1000]
        part[:] = rng.standard_normal(part.shape, np.float32)
    return found


def ours(pool):
    """Returns our scoring of rows of the pool, as in ``audiodd active``."""
    settings = config()
    model = models.make(settings.model, CLASSES)
    shape = (_BINS.value, _FRAMES.value)
    network = Network(models.init(KEY, model, shape), None)
    stats = Normalization(jnp.zeros(shape[0]), jnp.ones(shape[0]))
    labels = jnp.zeros(_CLIPS.value, jnp.int32)
    split = Clips(jnp.asarray(pool), labels, stats)

    def of_clips(network, images, ids, key):
        return acquisition.bald(
            monte_carlo.dropout_passes(model, network, images, ids, key, _PASSES.value)
        )

    values = monte_carlo.over_pool(of_clips, split, settings.active.chunk)
    return lambda rows: values(network, rows, KEY).block_until_ready()


def pytorch(pool, *, channels_last):
    """Returns a plain loop over rows, with one call per batch and pass."""
    import torch
    import torch_networks

    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = (_BINS.value, _FRAMES.value)
    in_blocks = DROPOUT * (_PLACE.value == "everywhere")
    net = torch_networks.convnet(
        shape, _WIDTH.value, _DEPTH.value, CLASSES, DROPOUT, in_blocks
    )
    net = net.to(device).eval()
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
    for layer in net.modules():
        if isinstance(layer, torch.nn.Dropout | torch.nn.Dropout2d):
            layer.train()
    clips = torch.tensor(pool, device=device)[:, None]

    def score(rows):
        scores = []
        with torch.inference_mode():
            for x in clips[torch.tensor(rows)].split(_BATCH.value):
                x = x.float()
                if channels_last:
                    x = x.contiguous(memory_format=torch.channels_last)
                logits = torch.stack([net(x) for _ in range(_PASSES.value)])
                log_probs = torch.log_softmax(logits, -1)
                mean = log_probs.exp().mean(0)
                entropy = -(log_probs.exp() * log_probs).sum(-1).mean(0)
                scores.append(-(mean * mean.log()).sum(-1) - entropy)
        return torch.cat(scores).sum().item()

    return score


def alone():
    """Scores once in this process; prints seconds and peak memory."""
    score = ours(features())
    began = time.perf_counter()
    score(np.arange(_CLIPS.value))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{seconds:.1f} {peak}")


def memory():
    """Prints a table of peak memory, each measured in a process of its own."""
    print("| clips | passes | width x depth | s, with compiling | peak memory (GB) |")
    print("|---|---|---|---|---|")
    cases = [(1000, passes, _WIDTH.value, _DEPTH.value) for passes in (5, 20, 80)]
    cases.append((_CLIPS.value, 2, _WIDTH.value, _DEPTH.value))
    cases.append((100_000, _PASSES.value, 4, 2))
    for clips, passes, width, depth in cases:
        command = [
            sys.executable, __file__, "--alone", f"--clips={clips}",
            f"--passes={passes}", f"--width={width}", f"--depth={depth}",
            f"--bins={_BINS.value}", f"--frames={_FRAMES.value}",
            f"--chunk={_CHUNK.value}", f"--place={_PLACE.value}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, peak = done.stdout.split()[-2:]
        print(
            f"| {clips:,} | {passes} | {width} x {depth} | {float(seconds):.0f} "
            f"| {int(peak) / 1e9:.2f} |",
            flush=True,
        )
    print()


def speed():
    """Prints the table of speeds."""
    import torch

    pool = features()
    scorers = {"ours": ours(pool)}
    for channels_last in (False, True):
        label = "PyTorch" + (", channels last" if channels_last else "")
        scorers[label] = pytorch(pool, channels_last=channels_last)
    parts = np.array_split(np.arange(_CLIPS.value), _TURNS.value)

    def turn(score):
        """Scores the next part; the warm-up turn scores the first part too."""
        order = iter([parts[0], *parts])
        return lambda: score(next(order))

    times = measure({name: turn(f) for name, f in scorers.items()}, _TURNS.value, 1)
    print(
        f"{_CLIPS.value:,} clips of {_BINS.value}x{_FRAMES.value}, {_PASSES.value} "
        f"passes, convnet of width {_WIDTH.value}, dropout {_PLACE.value}, "
        f"chunks of {config().active.chunk} "
        f"(PyTorch: {_BATCH.value}), "
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}, torch "
        f"{torch.__version__}\n"
    )
    head = (
        "clips x passes/s | median s per turn | whole pool, s | our speed / its speed"
    )
    print(f"| contender | {head} |\n|---|---|---|---|---|")
    ours_median = statistics.median(times["ours"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        ratio = "" if name == "ours" else f"{median / ours_median:.2f}"
        rate = parts[0].size * _PASSES.value / median
        print(f"| {name} | {rate:,.0f} | {median:.2f} | {sum(seconds):.0f} | {ratio} |")


def main(_):
    logging.set_verbosity(logging.WARNING)
    if _ALONE.value:
        alone()
        return
    if _MEMORY.value:
        memory()
    if _SPEED.value:
        speed()


if __name__ == "__main__":
    app.run(main)
