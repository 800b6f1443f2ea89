"""Names of methods and acquisition functions, and the settings of each kind of run."""

# What a distillation and what a training depends on: a run of one does not care for
# the other's settings.
DISTILLATION = (
    "method",
    "seed",
    "data",
    "features",
    "network",
    "coreset",
    "rfad",
    "kip",
    "matching",
    "siamese",
    "optimizer",
    "augment",
    "loop",
    "evaluation",
)


TRAINING = ("seed", "data", "features", "model", "training")


ACTIVE = (*TRAINING, "active")


ACQUISITIONS = (
    "random",
    "max_entropy",
    "variation_ratios",
    "bald",
    "margin",
    "k_center",
    "badge",
)


# Distillation methods: of kernel regression, of matching (gradients, or features of
# every class), and choices of real clips.
REGRESSION = ("rfad", "kip")


MATCHING = ("dc", "dsa", "dm")


SELECTION = ("random", "herding", "k_center")


METHODS = (*REGRESSION, *MATCHING, *SELECTION)
