"""Trains a ConvNet on the coreset in this folder, with PyTorch alone.

    python train.py --seeds=3

It trains on ``train.npz`` with the settings in ``recipe.json`` and writes
``convnet.pt``. If the folder has test clips (``test.npz``), it prints their accuracy.
Other scripts can import ``load`` and ``ConvNet``.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from preprocess import SAMPLE_RATE, preprocess
from torch import nn
from torch.nn import functional

HERE = Path(__file__).parent
RECIPE = json.loads((HERE / "recipe.json").read_text())


def truncated_normal(weight, gain):
    """Draws normal weights of variance ``gain / fan_in``, cut at two deviations."""
    std = math.sqrt(gain / weight[0].numel()) / 0.87962566
    return nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def make_norm(kind, width):
    """Returns a normalisation layer."""
    if kind == "batch":
        return nn.BatchNorm2d(width)
    if kind == "instance":
        return nn.GroupNorm(width, width)
    groups = max(g for g in range(1, 9) if width % g == 0)
    return nn.GroupNorm(groups, width, eps=1e-6) if kind == "group" else nn.Identity()


class ConvNet(nn.Module):
    """Blocks of [3x3 convolution, norm, ReLU, 2x2 average pooling], a linear head."""

    def __init__(self, image_shape, classes, settings=RECIPE["model"]):
        super().__init__()
        width, norm = settings["width"], settings["norm"]
        self.readout, self.drop = settings["readout"], settings["block_dropout"]
        shape, channels = image_shape, 1
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for _ in range(settings["depth"]):
            conv = nn.Conv2d(channels, width, 3, padding=1, bias=norm == "none")
            truncated_normal(conv.weight, 2)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            self.convs.append(conv)
            self.norms.append(make_norm(norm, width))
            channels, shape = width, [max(1, side // 2) for side in shape]
        sizes = {"flatten": shape[0] * shape[1], "time_mean": shape[0], "mean": 1}
        self.dropout = nn.Dropout(settings["dropout"])
        self.head = nn.Linear(width * sizes[self.readout], classes)
        nn.init.zeros_(self.head.bias)
        if settings["head"] == "zero":
            nn.init.zeros_(self.head.weight)
        else:
            truncated_normal(self.head.weight, 1)

    def forward(self, x):
        """Returns logits ``[b, classes]`` for spectrograms ``[b, 1, f, t]``."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = functional.relu(norm(conv(x)))
            x = functional.avg_pool2d(x, [min(2, side) for side in x.shape[2:]])
            x = functional.dropout2d(x, self.drop, self.training)
        axes = {"flatten": (), "time_mean": (3,), "mean": (2, 3)}[self.readout]
        x = x.mean(axes) if axes else x
        return self.head(self.dropout(x.flatten(1)))


def rate(step, steps):
    """Returns the learning rate of a step relative to its peak."""
    warmup = round(RECIPE["warmup"] * steps)
    if step < warmup:
        return (step + 1) / warmup
    if RECIPE["schedule"] == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2


def train(images, targets, steps):
    """Trains a network on spectrograms ``[k, 1, f, t]`` and their probabilities."""
    network = ConvNet(images.shape[2:], targets.shape[1])
    params = list(network.parameters())
    decayed = {"params": [p for p in params if p.ndim > 1]}
    decayed["weight_decay"] = RECIPE["weight_decay"]
    plain = {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([decayed, plain], RECIPE["learning_rate"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: rate(i, steps))
    if RECIPE["augment"]:
        from augment import augment
    size, order = min(RECIPE["batch_size"], len(images)), torch.randperm(len(images))
    for _ in range(steps):
        # A batch may span two epochs, so that all batches have the same size.
        if len(order) < size:
            order = torch.cat([order, torch.randperm(len(images))])
        rows, order = order[:size], order[size:]
        batch = augment(images[rows]) if RECIPE["augment"] else images[rows]
        loss = functional.cross_entropy(network(batch), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def load(name, *arrays):
    """Loads arrays from a ``.npz`` file in this folder as tensors."""
    with np.load(HERE / name, allow_pickle=False) as file:
        return [torch.from_numpy(file[array]) for array in arrays]


def main():
    """Trains the networks and tests them on the test clips, if available."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=RECIPE["seeds"])
    parser.add_argument("--steps", type=int, default=RECIPE["steps"])
    flags = parser.parse_args()
    images, targets = load("train.npz", "images", "targets")
    networks, test = [], None
    if (HERE / "test.npz").exists():
        waveforms, labels = load("test.npz", "waveforms", "labels")
        clips = [preprocess(waveform.numpy(), SAMPLE_RATE) for waveform in waveforms]
        test = torch.from_numpy(np.stack(clips))[:, None]
    accuracies = []
    for seed in range(flags.seeds):
        torch.manual_seed(seed)
        networks.append(train(images[:, None], targets, flags.steps))
        if test is not None:
            with torch.no_grad():
                logits = torch.cat([networks[-1](part) for part in test.split(256)])
            hits = (logits.argmax(1) == labels).float()
            accuracies.append(100 * hits.mean().item())
            print(f"seed {seed}: test accuracy {accuracies[-1]:.1f} %", flush=True)
    torch.save([network.state_dict() for network in networks], HERE / "convnet.pt")
    print(f"saved {len(networks)} networks to {HERE / 'convnet.pt'}")
    if len(accuracies) > 1:
        mean, std = np.mean(accuracies), np.std(accuracies, ddof=1)
        print(f"test accuracy {mean:.1f} ± {std:.1f} %")


if __name__ == "__main__":
    main()
