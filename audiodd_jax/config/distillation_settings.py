"""Settings of distillation: coreset, methods, teacher, loop, evaluation."""

import dataclasses

from audiodd_jax.config.settings import (
    AT_LEAST_ONE,
    BELOW_ONE,
    BYTES,
    FACTOR,
    INITIAL,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    AugmentConfig,
    one_of,
    setting,
    strong,
)


@dataclasses.dataclass
class RandomNetworkConfig:
    """The random networks of RFAD.

    Attributes:
      depth: blocks of [3x3 conv, ReLU, 2x2 average pool].
      width: channels of each block.
      readout: ``flatten`` or ``time_mean`` (the random output layer is integrated out
        analytically), or ``dense`` (it is sampled).
      output_dim: outputs M of the dense head.
      weight_variance: kernels are N(0, weight_variance / fan_in).
      bias_std: biases are N(0, bias_std^2).
      precision: precision of the features: ``float32``, or ``tf32`` or ``bfloat16``
        operands with float32 accumulation; kernels and solve are at least float32.
      chunk: inputs that a network processes at once; 0: as many as should fit in the
        device's memory.
    """

    depth: int = setting(3, AT_LEAST_ONE)
    width: int = setting(256, AT_LEAST_ONE)
    readout: str = setting("flatten", one_of("flatten", "dense", "time_mean"))
    output_dim: int = setting(4096, AT_LEAST_ONE)
    weight_variance: float = 2.0
    bias_std: float = setting(0.1, NOT_NEGATIVE)
    precision: str = setting("float32", one_of("float32", "tf32", "bfloat16"))
    chunk: int = setting(0, NOT_NEGATIVE)


@dataclasses.dataclass
class CoresetConfig:
    """The coreset that is learned.

    Attributes:
      samples_per_class: spectrograms per class (images per class, IPC); 0: ``samples``
        are given. A class with fewer training clips has as many as clips, unless
        ``init`` is ``noise``.
      samples: spectrograms in all, at least one per class; 0: ``samples_per_class``.
      spread: how ``samples`` are spread over the classes: ``even``, or
        ``proportional`` to their training clips. Classes with fewer clips leave the
        rest to the others.
      init: ``real`` (random training clips, class-balanced), ``herding`` or
        ``k_center`` (training clips selected by these methods), ``noise``, or the path
        of a coreset's ``.npz``.
      learn_labels: learn soft labels along with the images.
      solve_labels: start from the labels that predict the training clips best, found
        in closed form (label solve); for methods based on regression.
      label_prior: weight that keeps solved labels close to the initial ones.
      preconditioner: learn each image as A X B, with learnt linear maps A over mel bins
        and B over time, which condition the optimisation.
      factor: number of shorter spectrograms packed along time into each stored one, or
        along mel bins and time (``2x2``: half the bins and half the frames, four in
        each); they are stretched to full size before use and share its label.
        ``2x2:1`` stores each in an image of its own, a quarter of the size.
      views: random views of each spectrogram, each labelled by the teacher; 0: the
        teacher labels the spectrogram itself. Needs ``teacher.networks``.
      storage: numbers in the coreset's file: ``float32``, ``float16``, ``int8``, or
        ``int4`` (images in four bits, labels as in int8). All scores are of the numbers
        that the file gives back.
      nested: the first spectrograms of each class are a smaller coreset: the loss is of
        the first 1, 2, 5, 10, 20, ... per class in turn, and views mix spectrograms of
        the same layer. ``Coreset.first`` cuts it. For rfad and selected clips.
      budget: bytes of the coreset's file, such as ``16kB``; empty: no limit. It chooses
        ``samples_per_class``, ``factor``, ``storage``, ``views``, ``views.top_k``, and
        whether small spectrograms stay real clips, by the rule in
        ``coreset/budget.py``.
    """

    samples_per_class: int = setting(10, NOT_NEGATIVE)
    samples: int = setting(0, NOT_NEGATIVE)
    spread: str = setting("even", one_of("even", "proportional"))
    init: str = setting("real", INITIAL)
    learn_labels: bool = True
    solve_labels: bool = False
    label_prior: float = setting(1e-2, POSITIVE)
    preconditioner: bool = False
    factor: str = setting("1", FACTOR)
    views: int = setting(0, NOT_NEGATIVE)
    storage: str = setting("float32", one_of("float32", "float16", "int8", "int4"))
    nested: bool = False
    budget: str = setting("", BYTES)


@dataclasses.dataclass
class RFADConfig:
    """The loss of random feature approximation distillation.

    Attributes:
      networks: random networks per step.
      loss: ``mse`` or ``platt`` (cross-entropy of scaled predictions).
      regularizer: lambda, relative to the mean diagonal of the coreset's kernel.
      kernel_precision: precision of kernels, solve and loss: ``float32``, or
        ``float64`` if the device supports it.
      views: the loss is of this many random views of each image, drawn anew in each
        step and labelled by the teacher; 0: of the spectrograms and their own labels.
        For ``rfad``; the group ``views`` describes them. A spectrogram of a quarter of
        the size has a quarter of the views, and at least one.
    """

    networks: int = setting(8, AT_LEAST_ONE)
    loss: str = setting("mse", one_of("mse", "platt"))
    regularizer: float = setting(5e-3, POSITIVE)
    kernel_precision: str = setting("float32", one_of("float32", "float64"))
    views: int = setting(0, NOT_NEGATIVE)

    @property
    def is_float64(self) -> bool:
        """Returns whether JAX needs float64, which it lacks by default."""
        return self.kernel_precision == "float64"

    def views_of_each(self, pieces: int) -> int:
        """Returns the views of each of the spectrograms that an image is cut into."""
        return max(1, self.views // pieces)


@dataclasses.dataclass
class KIPConfig:
    """Kernel inducing points: RFAD's loss (see ``rfad``) with the exact kernel.

    Attributes:
      kernel: ``nngp``, which RFAD approximates, or ``ntk``.
      pairs: pairs of spectrograms whose kernel is computed at once; 0: as many as
        should fit in the device's memory.
    """

    kernel: str = setting("nngp", one_of("nngp", "ntk"))
    pairs: int = setting(0, NOT_NEGATIVE)


@dataclasses.dataclass
class FRePoConfig:
    """Neural feature regression (``frepo``): kernels of trained networks.

    Attributes:
      networks: size of the pool of networks; one is drawn per step.
      max_age: training steps on the coreset after which a network is replaced.
      depth: number of blocks of these ConvNets.
      width: channels of these ConvNets.
      norm: normalisation: ``none`` (as published), ``instance`` or ``group``.
      readout: reduction of their last feature map: ``flatten`` (as published),
        ``time_mean`` or ``mean``.
      network_learning_rate: learning rate for these networks (Adam).
      network_batch: batch size (coreset spectrograms) for training a network.
      regularizer: lambda, relative to the mean diagonal of the coreset's kernel.
      margin_weight: weight of the margin between the two largest labels of each
        spectrogram; 0: no margin.
    """

    networks: int = setting(10, AT_LEAST_ONE)
    max_age: int = setting(100, AT_LEAST_ONE)
    depth: int = setting(3, AT_LEAST_ONE)
    width: int = setting(128, AT_LEAST_ONE)
    norm: str = setting("none", one_of("none", "instance", "group"))
    readout: str = setting("flatten", one_of("flatten", "time_mean", "mean"))
    network_learning_rate: float = setting(3e-4, POSITIVE)
    network_batch: int = setting(500, AT_LEAST_ONE)
    regularizer: float = setting(1e-3, POSITIVE)
    margin_weight: float = setting(1.0, NOT_NEGATIVE)


@dataclasses.dataclass
class MatchingConfig:
    """Gradient matching (``dc``, ``dsa``) and distribution matching (``dm``).

    Attributes:
      depth: number of blocks of the matched ConvNet.
      width: channels of the matched ConvNet.
      norm: normalisation: ``instance`` (as published), ``group`` or ``none``.
      real_per_class: real clips per class and step; smaller classes repeat theirs.
      optimizer: optimiser for the images: ``sgd`` (as published), or ``adam``, which
        needs fewer steps.
      learning_rate: learning rate for the images.
      momentum: momentum for the images, or Adam's decay of the first moment.
      outer_loop: steps per inner-loop network, which is trained on the coreset between
        them; 0: the published value for the mean number of samples per class.
      inner_loop: training epochs of that network between two steps; 0: the published
        value.
      network_learning_rate: learning rate for the inner-loop network.
      network_batch: batch size for the inner-loop network.
    """

    depth: int = setting(3, AT_LEAST_ONE)
    width: int = setting(128, AT_LEAST_ONE)
    norm: str = setting("instance", one_of("instance", "group", "none"))
    real_per_class: int = setting(256, AT_LEAST_ONE)
    optimizer: str = setting("sgd", one_of("sgd", "adam"))
    learning_rate: float = setting(0.1, POSITIVE)
    momentum: float = setting(0.5, BELOW_ONE)
    outer_loop: int = setting(0, NOT_NEGATIVE)
    inner_loop: int = setting(0, NOT_NEGATIVE)
    network_learning_rate: float = setting(0.01, POSITIVE)
    network_batch: int = setting(256, AT_LEAST_ONE)


@dataclasses.dataclass
class SiameseConfig:
    """Differentiable Siamese augmentation, for ``dsa`` and ``dm``.

    Each transformation is drawn once for all real and synthetic clips of a class; 0
    disables one.

    Attributes:
      mode: apply ``one`` random transformation (as published) or ``all``.
      time_shift: maximum shift along time, as a fraction of the frames.
      time_stretch: maximum stretch or compression of time about the clip's middle, as a
        fraction.
      frequency_shift: maximum shift along frequency, as a fraction of the mel bins.
      time_mask: maximum width of a band of frames set to silence, as a fraction of the
        frames.
      frequency_mask: maximum width of a band of mel bins set to silence, as a fraction
        of the bins.
      gain_db: maximum change of level, in dB.
      noise_db: maximum standard deviation of added noise, in dB.
    """

    mode: str = setting("one", one_of("one", "all"))
    time_shift: float = setting(0.15, SHARE)
    time_stretch: float = setting(0.15, BELOW_ONE)
    frequency_shift: float = setting(0.05, SHARE)
    time_mask: float = setting(0.3, SHARE)
    frequency_mask: float = setting(0.25, SHARE)
    gain_db: float = setting(6.0, NOT_NEGATIVE)
    noise_db: float = setting(4.0, NOT_NEGATIVE)


@dataclasses.dataclass
class OptimizerConfig:
    """AdaBelief on the coreset, for ``rfad``, ``kip`` and ``frepo``.

    Attributes:
      learning_rate: learning rate for images and labels.
      platt_learning_rate: learning rate for the log-scale of the ``platt`` loss.
      schedule: ``constant`` or ``cosine`` (to zero at the last step).
    """

    learning_rate: float = setting(1e-2, POSITIVE)
    platt_learning_rate: float = setting(1e-2, NOT_NEGATIVE)
    schedule: str = setting("constant", one_of("constant", "cosine"))


@dataclasses.dataclass
class TeacherConfig:
    """The teacher: an ensemble of networks that labels a finished coreset.

    It is trained on all training clips with the recipe of its model. Networks trained
    on the coreset use its soft labels; kernel regression uses the coreset's own labels.

    Attributes:
      networks: networks of the ensemble; 0: no teacher.
      model: ``convnet`` or ``resnet18``.
      steps: training steps of each network.
      temperature: divides the logits before the softmax.
      seed: seed of the first network; runs with the same teacher share it in the cache.
    """

    networks: int = setting(0, NOT_NEGATIVE)
    model: str = setting("convnet", one_of("convnet", "resnet18"))
    steps: int = setting(800, AT_LEAST_ONE)
    temperature: float = setting(2.0, POSITIVE)
    seed: int = setting(1000, SEED)


@dataclasses.dataclass
class ViewsConfig:
    """How the views of a coreset's spectrograms differ from them.

    Attributes:
      top_k: largest labels of each view that are stored; the rest of its probability is
        spread evenly over the other classes. 0: all labels.
      mixed: fraction of the views that are blended with another spectrogram, in a
        random proportion.
      augment: augmentation of each view.
    """

    top_k: int = setting(0, NOT_NEGATIVE)
    mixed: float = setting(0.5, SHARE)
    augment: AugmentConfig = dataclasses.field(default_factory=strong)


@dataclasses.dataclass
class LabelsConfig:
    """The labelled part of the training split, for distillation from few labels.

    With only part of the labels, validation clips are left out, since their labels
    are unknown, and the last coreset is kept.

    Attributes:
      run: run directory of ``audiodd active``, whose labels at ``budget`` are used; or
        a session of ``audiodd label``.
      budget: a budget of that run: a fraction of the training split (``20%``), or clips
        per class (``10/class``).
      fraction: fraction of the training split whose labels are used, drawn at random
        and stratified by class.
      indices: file of the row numbers, from 0, of the training clips whose labels are
        used.
      pseudo: label the other training clips with networks trained on the labelled ones
        (with the recipe of ``teacher``).
      confidence: minimum probability of a pseudo-label; clips below it are left out.
    """

    run: str = ""
    budget: str = ""
    fraction: float = setting(1.0, SHARE)
    indices: str = ""
    pseudo: bool = False
    confidence: float = setting(0.9, SHARE)

    @property
    def is_part(self) -> bool:
        """Returns whether only part of the labels is used."""
        return bool(self.run or self.indices or self.fraction < 1)


@dataclasses.dataclass
class LoopConfig:
    """Length of a distillation, and its logging, validation and checkpoints.

    Attributes:
      steps: distillation steps.
      batch_size: real clips per step (all of them in a smaller dataset).
      draw: ``clips``: uniform over clips; ``recordings``: uniform over classes, then
        over the recordings of a class, for data with many clips per recording.
      log_every: steps per compiled chunk, after which metrics are logged.
      eval_every: steps between validations; 0: only at the end.
      checkpoint_every: steps between checkpoints.
      patience: validations without a better coreset before stopping; 0: never stop
        early.
      keep: ``best``: the latest coreset whose validation accuracy (by kernel
        regression) is within one standard error of the highest; ``last``: the final
        one.
    """

    steps: int = setting(1000, AT_LEAST_ONE)
    batch_size: int = setting(1280, AT_LEAST_ONE)
    draw: str = setting("clips", one_of("clips", "recordings"))
    log_every: int = setting(10, AT_LEAST_ONE)
    eval_every: int = setting(50, NOT_NEGATIVE)
    checkpoint_every: int = setting(50, AT_LEAST_ONE)
    patience: int = setting(0, NOT_NEGATIVE)
    keep: str = setting("best", one_of("best", "last"))


@dataclasses.dataclass
class EvaluationConfig:
    """Metric of a run, and kernel regression with fresh random networks.

    Attributes:
      metric: what stops early, selects and is reported first: ``accuracy``,
        ``balanced_accuracy`` (the mean over classes), or ``auto``: balanced accuracy
        where the largest class has more than 1.5 times the training clips of the
        smallest. Tags have mean average precision.
      networks: random networks per seed.
      width: width of those networks; 0: the same as ``network.width``.
      seeds: independent draws of the networks; the reported accuracy is the mean.
      batch_size: clips scored at once.
    """

    metric: str = setting("auto", one_of("auto", "accuracy", "balanced_accuracy"))
    networks: int = setting(8, AT_LEAST_ONE)
    width: int = 0
    seeds: int = setting(3, AT_LEAST_ONE)
    batch_size: int = setting(512, AT_LEAST_ONE)
