"""Names of methods, acquisition functions and formats."""

# Acquisition functions: by predictions, by a committee of networks, by features and by
# the pool's embedding.
SCORING = ("random", "max_entropy", "variation_ratios", "bald", "margin")
COMMITTEE = ("vote_entropy", "consensus_kl")
DIVERSE = ("k_center", "badge")
COVERING = ("typiclust", "probcover", "medoids")
ACQUISITIONS = (*SCORING, *COMMITTEE, *DIVERSE, *COVERING)
# The end of a score's name in a comparison, for batches that are diverse, too.
DIVERSE_BATCHES = "_diverse"

# Distillation methods: by kernel regression, by matching gradients or features class by
# class, by matching the gradients of an encoder's linear head, and by selecting clips.
REGRESSION = ("rfad", "kip", "frepo")
MATCHING = ("dc", "dsa", "dm")
HEADS = ("lgm",)
SELECTION = ("random", "herding", "k_center", "medoids")
METHODS = (*REGRESSION, *MATCHING, *HEADS, *SELECTION)
# Methods that can learn for an encoder.
ENCODED = ("rfad", *HEADS, *SELECTION)
# Encoders that ship; ``networks/encoder.py`` makes them.
ENCODERS = ("speech_embedding",)


def file_stem(network: str) -> str:
    """Returns a network's name in the form used in file names."""
    return network.replace(":", "-")


# Accelerators of ``--target``; ``forecast/targets.py`` describes them.
CHIPS = ("v4", "v5e", "v5p", "v6e", "a100", "h100", "h200")
# Formats of ``audiodd export``.
EXPORTS = ("pytorch", "numpy", "audiofolder", "datasets", "coreset")
# Trackers of this package; ``runtime/trackers.py`` starts them.
TRACKERS = ("tensorboard", "wandb", "mlflow", "clu")
