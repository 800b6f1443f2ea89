"""PyTorch versions of the networks, for comparison in benchmarks."""

import functools
import itertools

from torch import nn, relu


def convnet(image_shape, width, depth, classes, dropout=0.0, block_dropout=0.0):
    """Builds blocks of [3x3 conv, batch norm, ReLU, 2x2 average pool, dropout]."""
    layers, channels = [], 1
    for _ in range(depth):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.AvgPool2d(2)]
        layers += [nn.Dropout2d(block_dropout)] if block_dropout else []
        channels = width
    places = (image_shape[0] // 2**depth) * (image_shape[1] // 2**depth)
    last = [nn.Dropout(dropout)] if dropout else []
    head = nn.Linear(width * places, classes)
    return nn.Sequential(*layers, nn.Flatten(), *last, head)


class _Block(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        conv = functools.partial(nn.Conv2d, padding=1, bias=False)
        self.body = nn.Sequential(
            conv(before, after, 3, stride=stride),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            conv(after, after, 3),
            nn.BatchNorm2d(after),
        )
        self.shortcut = nn.Identity()
        if before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False),
                nn.BatchNorm2d(after),
            )

    def forward(self, x):
        return relu(self.body(x) + self.shortcut(x))


def resnet18(width, classes):
    """Builds ResNet-18 for one input channel."""
    stem = [nn.Conv2d(1, width, 7, stride=2, padding=3, bias=False)]
    stem += [nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    widths = [width] + [width * 2**stage for stage in range(4) for _ in range(2)]
    blocks = [
        _Block(before, after, 1 if before == after else 2)
        for before, after in itertools.pairwise(widths)
    ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, classes)]
    return nn.Sequential(*stem, *blocks, *head)
