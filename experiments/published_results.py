"""Published test accuracies (%), to print next to ours.

Gudur and Thomaz distilled three datasets with RFAD. They print the fraction of the
training clips as if it were per cent ("0.029 %" is 2.9 %). ``LABELS`` holds their
labels, which tables mark as published.
"""

from typing import NamedTuple


class Source(NamedTuple):
    """Published accuracies of a network on a dataset.

    Attributes:
      everything: Accuracy with all training clips.
      chosen: Accuracies by acquisition function, at 60, 40, 30 and 20 % of the clips.
      fewest: Accuracy by acquisition function, at the budget called the coreset's.
      distilled: Accuracies of the largest, middle and smallest coreset.
    """

    everything: float
    chosen: dict[str, tuple[float, float, float, float]]
    fewest: dict[str, float]
    distilled: tuple[float, float, float]


SHARES = ("60%", "40%", "30%", "20%")
# Spectrograms per class of the coresets, largest first.
SIZES = {
    "speech_commands": (50, 30, 20),
    "urbansound8k": (50, 30, 20),
    "esc50": (5, 3, 2),
}
# Published labels for the share of the largest coresets, which is also the smallest
# budget of the acquisition functions.
LABELS = {
    "speech_commands": "0.029 %",
    "urbansound8k": "0.063 %",
    "esc50": "0.15 %",
}


def _source(everything, entropy, ratios, bald, random, fewest, distilled):
    names = ("max_entropy", "variation_ratios", "bald", "random")
    chosen = dict(zip(names, (entropy, ratios, bald, random), strict=True))
    return Source(everything, chosen, dict(zip(names, fewest, strict=True)), distilled)


RESULTS = {
    ("resnet18", "speech_commands"): _source(
        89.92,
        (72.2, 69.6, 65.1, 57.25),
        (73.36, 70.85, 65.3, 58.72),
        (73.15, 70.5, 65.1, 58.55),
        (73.15, 70.25, 65.36, 58.48),
        (9.15, 9.24, 9.38, 9.27),
        (72.24, 61.13, 51.68),
    ),
    ("resnet18", "urbansound8k"): _source(
        79.27,
        (62.15, 57.45, 53.36, 45.18),
        (63.02, 58.75, 54.12, 46.78),
        (63.12, 58.95, 54.08, 46.42),
        (62.87, 59.08, 54.45, 46.92),
        (7.56, 7.15, 7.39, 7.72),
        (61.67, 50.24, 37.85),
    ),
    ("resnet18", "esc50"): _source(
        69.36,
        (50.2, 45.12, 41.25, 36.75),
        (51.25, 45.36, 41.58, 36.24),
        (50.95, 44.78, 40.75, 35.16),
        (50.67, 44.95, 39.25, 33.18),
        (5.12, 5.84, 5.5, 4.95),
        (49.65, 31.25, 17.96),
    ),
    ("convnet", "speech_commands"): _source(
        87.45,
        (69.92, 66.25, 63.55, 56.18),
        (70.48, 66.95, 63.15, 55.86),
        (70.27, 66.18, 62.67, 56.25),
        (70.67, 67.05, 62.18, 56.67),
        (8.27, 8.75, 8.35, 8.96),
        (69.18, 57.45, 45.67),
    ),
    ("convnet", "urbansound8k"): _source(
        77.24,
        (59.36, 53.15, 50.65, 43.55),
        (59.75, 53.5, 49.87, 43.78),
        (59.25, 53.15, 49.33, 42.95),
        (59.27, 52.92, 49.45, 43.15),
        (6.25, 5.92, 6.04, 6.36),
        (58.52, 48.15, 35.75),
    ),
    ("convnet", "esc50"): _source(
        67.62,
        (48.56, 44.78, 39.05, 34.56),
        (48.21, 44.35, 38.67, 34.95),
        (47.75, 43.85, 38.75, 33.48),
        (48.05, 44.72, 38.02, 35.05),
        (4.85, 4.72, 4.3, 4.67),
        (46.92, 28.05, 15.67),
    ),
}
