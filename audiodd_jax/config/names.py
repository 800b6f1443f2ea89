"""Names of methods, acquisition functions and formats; settings of each kind of run."""

# The settings that each kind of run depends on and records.
DISTILLATION = (
    "method",
    "seed",
    "data",
    "features",
    "network",
    "coreset",
    "rfad",
    "kip",
    "frepo",
    "matching",
    "siamese",
    "optimizer",
    "augment",
    "teacher",
    "views",
    "labels",
    "loop",
    "evaluation",
)
TRAINING = ("seed", "data", "features", "model", "training")
ACTIVE = (*TRAINING, "active")

# Settings that do not affect a run's numbers: it may be resumed with other values.
MAY_CHANGE = (
    "data.data_dir",
    "data.processes",
    "data.storage",
    "network.chunk",
    "evaluation.seeds",
    "evaluation.width",
    "evaluation.batch_size",
)

ACQUISITIONS = (
    "random",
    "max_entropy",
    "variation_ratios",
    "bald",
    "margin",
    "k_center",
    "badge",
    "typiclust",
    "probcover",
    "medoids",
)
# Distillation methods: by kernel regression, by matching gradients or features class by
# class, and by selecting real clips.
REGRESSION = ("rfad", "kip", "frepo")
MATCHING = ("dc", "dsa", "dm")
SELECTION = ("random", "herding", "k_center")
METHODS = (*REGRESSION, *MATCHING, *SELECTION)


def file_stem(network: str) -> str:
    """Returns a network's name in the form used in file names."""
    return network.replace(":", "-")


# Accelerators of ``--target``; ``forecast/targets.py`` describes them.
CHIPS = ("v4", "v5e", "v5p", "v6e", "a100", "h100", "h200")
# Formats of ``audiodd export``.
EXPORTS = ("pytorch", "numpy", "audiofolder", "datasets")
