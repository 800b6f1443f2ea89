"""Settings of trained networks and of active learning."""

import dataclasses

from audiodd_jax.config import extensions
from audiodd_jax.config.clip_settings import AugmentConfig
from audiodd_jax.config.constraints import (
    AT_LEAST_ONE,
    BELOW_ONE,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    installed_or,
    one_of,
    path_or,
    setting,
)
from audiodd_jax.config.names import ACQUISITIONS


@dataclasses.dataclass
class ModelConfig:
    """The network to train.

    Attributes:
      name: ``convnet``, ``resnet18``, ``linear``, or the factory of another Flax
        module, ``package.module:factory``.
      depth: blocks of the ConvNet.
      width: channels of the ConvNet's blocks, or of the ResNet's first stage.
      norm: ``batch``, ``instance``, ``group`` or ``none``.
      readout: reduction of the last feature map: ``flatten``, ``time_mean`` or
        ``mean``.
      head: initial weights of the last layer: ``zero`` (all classes equally likely) or
        ``random``.
      stem: first layer of the ResNet: ``imagenet``, or ``small`` for small spectrograms
        (slower).
      dropout: dropout rate.
      dropout_place: ``everywhere`` (after blocks and before the logits) or ``head``
        (only before the logits).
    """

    name: str = setting("convnet", path_or("convnet", "resnet18", "linear"))
    depth: int = setting(4, AT_LEAST_ONE)
    width: int = setting(64, AT_LEAST_ONE)
    norm: str = setting("batch", one_of("batch", "instance", "group", "none"))
    readout: str = setting("time_mean", one_of("flatten", "time_mean", "mean"))
    head: str = setting("zero", one_of("zero", "random"))
    stem: str = setting("imagenet", one_of("imagenet", "small"))
    dropout: float = setting(0.0, BELOW_ONE)
    dropout_place: str = setting("everywhere", one_of("everywhere", "head"))


@dataclasses.dataclass
class TrainingConfig:
    """How a network is trained.

    Attributes:
      steps: optimisation steps.
      batch_size: clips per step; all of them in a smaller training set.
      seeds: number of networks, trained with the seeds ``seed``, ``seed + 1``, ...
      parallel: seeds trained at once; 0: one on CPU, elsewhere as many as fit in the
        device's memory.
      optimizer: ``adamw`` or ``sgd`` (with Nesterov momentum).
      learning_rate: peak learning rate.
      weight_decay: decoupled weight decay of the kernels.
      momentum: momentum of SGD.
      warmup: fraction of the steps over which the learning rate rises.
      schedule: after warm-up, ``cosine`` (to zero at the last step) or ``constant``.
      loss: ``cross_entropy`` (binary for tags) or ``mse``.
      labels: labels of a coreset: ``soft`` (as learned) or ``hard`` (the largest).
      teacher_labels: if the coreset has a teacher's labels, train on its views with
        those instead.
      label_scale: scale of the soft (centred) labels; the result is the target of
        ``mse``, or after a softmax that of ``cross_entropy``.
      label_smoothing: fraction of a hard label spread over all classes.
      centre_outputs: subtract the network's output at initialisation (no effect with
        ``model.head=zero``).
      mixup: alpha of mixup's Beta(alpha, alpha); 0: no mixup.
      average: decay per step of the exponential moving average of the weights; 0: no
        averaging.
      precision: precision of the blocks' convolutions and matrix products: ``float32``
        or ``bfloat16``.
      log_every: steps per compiled chunk, after which metrics are logged.
      eval_every: steps between validations; 0: only at the end.
      checkpoint_every: steps between checkpoints.
      patience: validations without improvement before training stops with the best
        weights; 0: never stop early, and keep the last weights.
      augment: augmentation of each batch.
    """

    steps: int = setting(500, AT_LEAST_ONE)
    batch_size: int = setting(128, AT_LEAST_ONE)
    seeds: int = setting(3, AT_LEAST_ONE)
    parallel: int = setting(0, NOT_NEGATIVE)
    optimizer: str = setting("adamw", one_of("adamw", "sgd"))
    learning_rate: float = setting(2e-3, POSITIVE)
    weight_decay: float = setting(0.05, NOT_NEGATIVE)
    momentum: float = setting(0.9, BELOW_ONE)
    warmup: float = setting(0.1, SHARE)
    schedule: str = setting("cosine", one_of("cosine", "constant"))
    loss: str = setting("cross_entropy", one_of("cross_entropy", "mse"))
    labels: str = setting("soft", one_of("soft", "hard"))
    teacher_labels: bool = True
    label_scale: float = setting(5.0, POSITIVE)
    label_smoothing: float = setting(0.1, SHARE)
    centre_outputs: bool = False
    mixup: float = setting(0.0, NOT_NEGATIVE)
    average: float = setting(0.0, BELOW_ONE)
    precision: str = setting("float32", one_of("float32", "bfloat16"))
    log_every: int = setting(25, AT_LEAST_ONE)
    eval_every: int = setting(0, NOT_NEGATIVE)
    checkpoint_every: int = setting(100, AT_LEAST_ONE)
    patience: int = setting(0, NOT_NEGATIVE)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)


@dataclasses.dataclass
class ActiveConfig:
    """Active learning: acquisition function, budgets and query batches.

    Attributes:
      acquisition: ``random``, ``max_entropy``, ``variation_ratios``, ``bald``,
        ``margin``, ``k_center``, ``badge``, ``typiclust``, ``probcover`` or
        ``medoids``.
      budgets: increasing sizes of the labelled pool: fractions of the training split
        (``0.2`` or ``20%``), or clips per class (``10/class``).
      initial: size of the initial labelled pool, drawn at random.
      initial_draw: ``balanced`` over classes, or ``uniform``.
      batch: maximum number of clips per query; 0: enough to reach the next budget.
      passes: forward passes with Monte Carlo dropout.
      chunk: clips scored at once per device.
      warm_start: continue from the last round's network instead of a new one.
      count_validation: count validation clips as labelled.
    """

    acquisition: str = setting(
        "bald", installed_or(extensions.ACQUISITIONS, *ACQUISITIONS)
    )
    budgets: tuple[str, ...] = ("20%", "30%", "40%", "60%")
    initial: str = "2/class"
    initial_draw: str = setting("balanced", one_of("balanced", "uniform"))
    batch: int = setting(0, NOT_NEGATIVE)
    passes: int = setting(20, AT_LEAST_ONE)
    chunk: int = setting(128, AT_LEAST_ONE)
    warm_start: bool = False
    count_validation: bool = False
