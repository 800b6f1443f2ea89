"""Measures training steps per second against PyTorch.

    pip install torch && python experiments/benchmarks/train.py

Both train the default ConvNet and ResNet-18 on the same batch with AdamW and
cross-entropy. Turns of ``--steps`` steps alternate, and medians are compared. On a CPU
PyTorch runs with its default layout and with channels last; on a GPU it is compiled,
with channels last.
"""

import functools
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import torch_networks
from absl import app, flags, logging
from alternate import measure

import audiodd_jax
from audiodd_jax.config import AugmentConfig
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.networks import models
from audiodd_jax.training import fit, trainer

_MODELS = flags.DEFINE_list("models", ["convnet", "resnet18"], "networks")
_BATCH = flags.DEFINE_integer("batch", 128, "clips per step")
_WIDTH = flags.DEFINE_integer(
    "width", 64, "channels (in ResNet-18, of the first stage)"
)
_BINS = flags.DEFINE_integer("bins", 32, "mel bins")
_FRAMES = flags.DEFINE_integer("frames", 64, "frames")
_STEPS = flags.DEFINE_integer("steps", 5, "steps per turn")
_TURNS = flags.DEFINE_integer("turns", 7, "turns of each contender")
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "bfloat16"],
    "precision of the products, for both",
)

CLASSES, LEARNING_RATE, WEIGHT_DECAY, DEPTH = 10, 1e-3, 0.05, 4
READOUTS = {"convnet": "flatten", "resnet18": "mean"}
# Only what PyTorch's loop does.
PLAIN = {
    "optimizer": "adamw",
    "schedule": "constant",
    "warmup": 0.0,
    "loss": "cross_entropy",
    "average": 0.0,
    "mixup": 0.0,
    "centre_outputs": False,
    **{f"augment__{name}": value for name, value in vars(AugmentConfig()).items()},
}


def problem():
    """Returns a batch and its labels."""
    rng = np.random.default_rng(0)
    shape = (_BATCH.value, _BINS.value, _FRAMES.value, 1)
    images = rng.standard_normal(shape).astype(np.float32)
    return images, (np.arange(_BATCH.value) % CLASSES).astype(np.int32)


def ours(name):
    """Returns a turn of our steps, as ``audiodd train`` runs them."""
    config = audiodd_jax.for_model(
        audiodd_jax.for_dataset("tones"),
        name,
        model__width=_WIDTH.value,
        model__depth=DEPTH,
        model__norm="batch",
        model__readout=READOUTS[name],
        model__stem="imagenet",
        training__precision=_PRECISION.value,
        training__batch_size=_BATCH.value,
        training__learning_rate=LEARNING_RATE,
        training__weight_decay=WEIGHT_DECAY,
        training__label_smoothing=0.0,
        **{f"training__{name}": value for name, value in PLAIN.items()},
    )
    settings = config.training
    images, labels = map(jnp.asarray, problem())
    data = fit.real_set(Clips(images, labels), CLASSES, settings)
    model = models.make(config.model, CLASSES, jnp.dtype(settings.precision))
    shape = (_BINS.value, _FRAMES.value)
    keys = jax.random.key(0)[None]
    state = jax.vmap(lambda key: trainer.init(key, model, shape, settings))(keys)
    stats = Normalization(
        np.zeros(_BINS.value, np.float32), np.ones(_BINS.value, np.float32)
    )
    step = functools.partial(
        trainer.step,
        model=model,
        config=settings,
        stats=stats,
        noise=None,
        loss=settings.loss,
    )
    chunk = trainer.make_chunk(step, stats)
    rows = trainer.draw(keys, 0, _STEPS.value, jnp.arange(_BATCH.value), _BATCH.value)

    def turn():
        nonlocal state
        state, metrics = chunk(state, trainer.Drawn(data, rows))
        return float(metrics["loss"])

    return turn


def pytorch(name, *, channels_last, compiled):
    """Returns a turn of the same steps in PyTorch."""
    import torch
    from torch.nn import functional

    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = torch_network(name).to(device)
    images, labels = problem()
    x = torch.tensor(images.transpose(0, 3, 1, 2).copy(), device=device)
    y = torch.tensor(labels, device=device).long()
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        net.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    forward = torch.compile(net) if compiled else net
    low = torch.autocast(device, torch.bfloat16, _PRECISION.value == "bfloat16")

    def step():
        with low:
            loss = functional.cross_entropy(forward(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return lambda: [step() for _ in range(_STEPS.value)][-1].item()


def torch_network(name):
    """Returns PyTorch's network of the same shapes."""
    if name == "resnet18":
        return torch_networks.resnet18(_WIDTH.value, CLASSES)
    shape = (_BINS.value, _FRAMES.value)
    return torch_networks.convnet(shape, _WIDTH.value, DEPTH, CLASSES)


def contenders(name):
    """Returns our turn, and PyTorch's with its default and its best layout."""
    import torch

    found = {"ours": ours(name)}
    if torch.cuda.is_available():
        best = pytorch(name, channels_last=True, compiled=True)
        return {**found, "PyTorch, compiled, channels last": best}
    for channels_last in (False, True):
        label = "PyTorch" + (", channels last" if channels_last else "")
        found[label] = pytorch(name, channels_last=channels_last, compiled=False)
    return found


def main(_):
    logging.set_verbosity(logging.WARNING)
    print(
        f"batch {_BATCH.value} of {_BINS.value}x{_FRAMES.value}, width {_WIDTH.value}, "
        f"{_PRECISION.value}, {jax.devices()[0].device_kind}, jax {jax.__version__}\n"
    )
    print(
        "| network | contender | steps/s | median s | fastest s "
        "| our speed / its speed |"
    )
    print("|---|---|---|---|---|---|")
    for name in _MODELS.value:
        times = measure(contenders(name), _TURNS.value, _STEPS.value)
        ours_median = statistics.median(times["ours"])
        for contender, seconds in times.items():
            median = statistics.median(seconds)
            ratio = "" if contender == "ours" else f"{median / ours_median:.2f}"
            print(
                f"| {name} | {contender} | {1 / median:.2f} | {median:.4f} "
                f"| {min(seconds):.4f} | {ratio} |",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
