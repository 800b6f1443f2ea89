"""Every setting and its default, as dataclasses.

This is the single source of every default. The module imports neither JAX nor NumPy,
so that ``audiodd help`` answers at once.
"""

import dataclasses

from audiodd_jax.config.constraints import (
    AT_LEAST_ONE,
    BELOW_ONE,
    INITIAL,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    one_of,
    setting,
)
from audiodd_jax.config.names import ACQUISITIONS, METHODS


@dataclasses.dataclass
class DataConfig:
    """Which recordings, and how they are split.

    Attributes:
      name: a dataset of the registry.
      variant: configuration of a dataset that has several; empty: the first.
      data_dir: folder or published archive (or CSV, for ``folder``) with the
        recordings; empty: the dataset's folder in the cache.
      fold: test fold, for datasets with folds; 0: the last one.
      test_fraction: share of each class in the test split if the data has no split.
      validation_fraction: share of the training split held out for model selection.
      split_seed: seed of the validation split (and of the test split if the data has
        none).
      skip_bad_files: leave out files that cannot be decoded, instead of refusing them.
      allow_partial: accept an incomplete published dataset.
      processes: worker processes for decoding and features; 0: chosen by the amount of
        work.
      storage: where training features are kept: ``device``, ``host`` (batches are
        streamed from the cache), or ``auto`` (on the device if they fit).
    """

    name: str = "tones"
    variant: str = ""
    data_dir: str = ""
    fold: int = setting(0, NOT_NEGATIVE)
    test_fraction: float = 0.2
    validation_fraction: float = 0.1
    split_seed: int = setting(0, NOT_NEGATIVE)
    skip_bad_files: bool = False
    allow_partial: bool = False
    processes: int = setting(0, NOT_NEGATIVE)
    storage: str = setting("auto", one_of("auto", "device", "host"))


@dataclasses.dataclass
class FeaturesConfig:
    """Waveform to log-mel spectrogram of ``n_mels`` x ``frames``.

    Attributes:
      sample_rate: sample rate in Hz; 0: the most common rate of the recordings.
      clip_seconds: length that every clip is padded or cropped to; 0: the 95th
        percentile of the recordings' lengths.
      frames: number of frames ``t``; the hop is ``ceil(clip / frames)`` samples.
      n_mels: number of mel bins ``f``.
      window_seconds: length of the Hann window.
      n_fft: length of the Fourier transform; 0: the power of two that holds a window.
      f_min: lowest mel frequency in Hz.
      f_max: highest mel frequency in Hz; 0: half the sample rate.
      mel_scale: ``slaney`` or ``htk``.
      top_db: dynamic range kept below the clip's loudest bin, in dB.
      clip_reference: level of 0 dB: ``peak`` (each clip's loudest bin, so that the
        recording level does not matter) or ``absolute`` (a full-scale bin).
      align: position of a short clip, and part of a long one that is kept: ``start``,
        ``center``, or ``repeat`` (a short clip is repeated).
      normalization: statistics of the training split, ``global`` or ``per_bin``.
    """

    sample_rate: int = 16_000
    clip_seconds: float = 1.0
    frames: int = 64
    n_mels: int = 32
    window_seconds: float = 0.032
    n_fft: int = 0
    f_min: float = 20.0
    f_max: float = 0.0
    mel_scale: str = setting("slaney", one_of("slaney", "htk"))
    top_db: float = setting(80.0, POSITIVE)
    clip_reference: str = setting("peak", one_of("peak", "absolute"))
    align: str = setting("start", one_of("start", "center", "repeat"))
    normalization: str = setting("global", one_of("global", "per_bin"))


@dataclasses.dataclass
class RandomNetworkConfig:
    """The random networks of RFAD.

    Attributes:
      depth: blocks of [3x3 conv, ReLU, 2x2 average pool].
      width: channels of each block.
      readout: ``flatten`` or ``time_mean`` (analytic), or ``dense`` (a random head).
      output_dim: outputs M of the dense head.
      weight_variance: kernels are N(0, weight_variance / fan_in).
      bias_std: biases are N(0, bias_std^2).
      precision: precision of the features: ``float32``, or ``tf32`` or ``bfloat16``
        operands with float32 sums; kernels and solve are at least float32.
      chunk: inputs that a network processes at once; 0: as many as are predicted to
        fit the device's memory.
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
      samples_per_class: spectrograms per class (images per class, IPC).
      init: ``real`` (random training clips, class-balanced), ``herding`` or
        ``k_center`` (training clips selected so), ``noise``, or the path of a
        coreset's ``.npz``.
      learn_labels: learn the soft labels too.
      preconditioner: learn the images through factored linear maps, mel x mel and
        time x time.
      factor: shorter spectrograms that each stored one holds, one after the other along
        time; they are stretched to full length before use and share its label: more
        samples for the same storage.
      views: random views of each spectrogram, each with a label of its own by the
        teacher; 0: the spectrogram itself is labelled. Needs ``teacher.networks``.
    """

    samples_per_class: int = setting(10, AT_LEAST_ONE)
    init: str = setting("real", INITIAL)
    learn_labels: bool = True
    preconditioner: bool = False
    factor: int = setting(1, AT_LEAST_ONE)
    views: int = setting(0, NOT_NEGATIVE)


@dataclasses.dataclass
class RFADConfig:
    """The loss of random feature approximation distillation.

    Attributes:
      networks: random networks per step.
      loss: ``mse`` or ``platt`` (cross-entropy of scaled predictions).
      regularizer: lambda, relative to the mean diagonal of the coreset's kernel.
      kernel_precision: precision of kernels, solve and loss: ``float32``, or
        ``float64`` if the device supports it.
    """

    networks: int = setting(8, AT_LEAST_ONE)
    loss: str = setting("mse", one_of("mse", "platt"))
    regularizer: float = setting(5e-3, POSITIVE)
    kernel_precision: str = setting("float32", one_of("float32", "float64"))


@dataclasses.dataclass
class KIPConfig:
    """Kernel inducing points: RFAD's loss (see ``rfad``) with the exact kernel.

    Attributes:
      kernel: ``nngp``, which RFAD approximates, or ``ntk``.
      pairs: pairs of spectrograms whose kernel is computed at once; 0: as many as are
        predicted to fit the device's memory.
    """

    kernel: str = setting("nngp", one_of("nngp", "ntk"))
    pairs: int = setting(0, NOT_NEGATIVE)


@dataclasses.dataclass
class FRePoConfig:
    """Neural feature regression (``frepo``): kernels of networks that are trained.

    Attributes:
      networks: networks of the pool, one of which is drawn per step.
      max_age: training steps on the coreset after which a network is renewed.
      depth: number of blocks of these ConvNets.
      width: their channels.
      norm: their normalisation: ``none`` as published, ``instance`` or ``group``.
      readout: reduction of their last feature map: ``flatten`` as published,
        ``time_mean`` or ``mean``.
      network_learning_rate: learning rate of these networks (Adam).
      network_batch: spectrograms of the coreset per training step of a network.
      regularizer: lambda, relative to the mean diagonal of the coreset's kernel.
      margin_weight: weight of the margin between the largest two labels of each
        spectrogram of the coreset; 0: no margin.
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
      norm: its normalisation: ``instance`` as published, ``group`` or ``none``.
      real_per_class: real clips of each class per step; repeated if there are fewer.
      optimizer: optimiser of the images: ``sgd`` as published, or ``adam``, which needs
        fewer steps.
      learning_rate: learning rate of the images.
      momentum: momentum of the images, or Adam's decay of the first moment.
      outer_loop: steps with one inner-loop network, which is trained on the coreset in
        between; 0: as published for ``samples_per_class``.
      inner_loop: training epochs of the network between two steps; 0: as published.
      network_learning_rate: learning rate of the inner-loop network.
      network_batch: batch size of the inner-loop network.
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
    switches it off.

    Attributes:
      mode: apply ``one`` random transformation, as published, or ``all``.
      time_shift: largest shift along time, as a share of the frames.
      time_stretch: largest stretch or squeeze of time about the middle, as a share.
      frequency_shift: largest shift along frequency, as a share of the mel bins.
      time_mask: widest band of frames set to silence, as a share of the frames.
      frequency_mask: widest band of mel bins set to silence, as a share of the bins.
      gain_db: largest change of level, in dB.
      noise_db: largest standard deviation of added noise, in dB.
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
      learning_rate: learning rate of images and labels.
      platt_learning_rate: learning rate of the Platt loss's log-scale.
      schedule: ``constant`` or ``cosine`` (to zero at the last step).
    """

    learning_rate: float = setting(1e-2, POSITIVE)
    platt_learning_rate: float = setting(1e-2, NOT_NEGATIVE)
    schedule: str = setting("constant", one_of("constant", "cosine"))


@dataclasses.dataclass
class AugmentConfig:
    """Augmentation of the real batch, drawn for each clip; 0 switches one off.

    Attributes:
      time_shift: largest shift along time, as a share of the frames.
      gain_db: largest change of level, in dB.
      noise_db: largest standard deviation of added noise, in dB.
      background: share of the clips to which background noise is added, for datasets
        that include some.
      background_snr_db: lowest ratio of the clip's loudest bin to the noise, in dB;
        drawn up to 30 dB above it.
      time_mask: widest band of frames set to silence, as a share of the frames.
      frequency_mask: widest band of mel bins set to silence, as a share of the bins.
    """

    time_shift: float = setting(0.0, SHARE)
    gain_db: float = setting(0.0, NOT_NEGATIVE)
    noise_db: float = setting(0.0, NOT_NEGATIVE)
    background: float = setting(0.0, SHARE)
    background_snr_db: float = 0.0
    time_mask: float = setting(0.0, SHARE)
    frequency_mask: float = setting(0.0, SHARE)


def strong() -> AugmentConfig:
    """Strong augmentation, without background noise."""
    return AugmentConfig(
        time_shift=0.15,
        gain_db=6.0,
        noise_db=4.0,
        time_mask=0.2,
        frequency_mask=0.15,
    )


@dataclasses.dataclass
class TeacherConfig:
    """The teacher: an ensemble of networks that labels a finished coreset.

    It is trained on all training clips by the recipe of its model, and gives networks
    that are trained on the coreset soft labels. Kernel regression keeps the coreset's
    own labels.

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
      mixed: share of the views that are mixed with another spectrogram, in a random
        proportion.
      augment: augmentation of each view.
    """

    mixed: float = setting(0.5, SHARE)
    augment: AugmentConfig = dataclasses.field(default_factory=strong)


@dataclasses.dataclass
class LoopConfig:
    """Length of a distillation, and its logging, validation and checkpoints.

    Attributes:
      steps: distillation steps.
      batch_size: real clips per step (all of them if there are fewer).
      log_every: steps per compiled chunk, after which metrics are logged.
      eval_every: steps between validations; 0: only at the end.
      checkpoint_every: steps between checkpoints.
      patience: validations that keep no coreset before stopping; 0: never stop early.
      keep: keep the ``best`` coreset: the last whose validation accuracy (by kernel
        regression) is within its standard error of the highest; or the ``last``.
    """

    steps: int = setting(1000, AT_LEAST_ONE)
    batch_size: int = setting(1280, AT_LEAST_ONE)
    log_every: int = setting(10, AT_LEAST_ONE)
    eval_every: int = setting(50, NOT_NEGATIVE)
    checkpoint_every: int = setting(50, AT_LEAST_ONE)
    patience: int = setting(0, NOT_NEGATIVE)
    keep: str = setting("best", one_of("best", "last"))


@dataclasses.dataclass
class EvaluationConfig:
    """Kernel regression with fresh random networks.

    Attributes:
      networks: random networks per seed.
      width: width of those networks; 0: the same as ``network.width``.
      seeds: independent draws of the networks; the reported accuracy is the mean.
      batch_size: clips scored at once.
    """

    networks: int = setting(8, AT_LEAST_ONE)
    width: int = 0
    seeds: int = setting(3, AT_LEAST_ONE)
    batch_size: int = setting(512, AT_LEAST_ONE)


@dataclasses.dataclass
class ModelConfig:
    """The network that is trained.

    Attributes:
      name: ``convnet``, ``resnet18`` or ``linear``.
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

    name: str = setting("convnet", one_of("convnet", "resnet18", "linear"))
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
      batch_size: clips per step; fewer if there are fewer, so that all batches are
        equal.
      seeds: number of networks, trained with the seeds ``seed``, ``seed + 1``, ...
      parallel: seeds trained at once; 0: one on CPU, elsewhere as many as fit the
        device's memory.
      optimizer: ``adamw`` or ``sgd`` (with Nesterov momentum).
      learning_rate: peak learning rate.
      weight_decay: decoupled weight decay, of kernels only.
      momentum: momentum of SGD.
      warmup: share of the steps over which the learning rate rises.
      schedule: after warm-up, ``cosine`` (to zero at the last step) or ``constant``.
      loss: ``cross_entropy`` or ``mse``.
      labels: labels of a coreset: ``soft`` as learned, or ``hard`` (the largest).
      teacher_labels: learn from the views and labels of the teacher instead, if the
        coreset has any.
      label_scale: factor of soft (centred) labels, before they are the targets of
        ``mse``, or their softmax those of ``cross_entropy``.
      label_smoothing: share of a hard label spread over all classes.
      centre_outputs: subtract the output of the initial network (zero anyway with a
        ``zero`` head).
      mixup: alpha of mixup's Beta(alpha, alpha); 0: no mixup.
      average: decay per step of the moving average of the weights; 0: no averaging.
      precision: precision of the blocks' products: ``float32`` or ``bfloat16``.
      log_every: steps per compiled chunk, after which metrics are logged.
      eval_every: steps between validations; 0: only at the end.
      checkpoint_every: steps between checkpoints.
      patience: validations without improvement before stopping with the best weights;
        0: never stop early, and keep the last.
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
        ``margin``, ``k_center`` or ``badge``.
      budgets: increasing sizes of the labelled pool: shares of the training split
        (``0.2`` or ``20%``), or clips per class (``10/class``).
      initial: size of the initial labelled pool, drawn at random.
      initial_draw: ``balanced`` over classes, or ``uniform``.
      batch: largest query batch; 0: up to the next budget.
      passes: forward passes with Monte Carlo dropout.
      chunk: clips scored at once per device.
      warm_start: continue from the last round's network, instead of a new one.
      count_validation: count validation clips as labelled.
    """

    acquisition: str = setting("bald", one_of(*ACQUISITIONS))
    budgets: tuple[str, ...] = ("20%", "30%", "40%", "60%")
    initial: str = "2/class"
    initial_draw: str = setting("balanced", one_of("balanced", "uniform"))
    batch: int = setting(0, NOT_NEGATIVE)
    passes: int = setting(20, AT_LEAST_ONE)
    chunk: int = setting(128, AT_LEAST_ONE)
    warm_start: bool = False
    count_validation: bool = False


@dataclasses.dataclass
class Config:
    """The whole configuration of a run; saved with it as ``config.json``."""

    method: str = setting("rfad", one_of(*METHODS))
    seed: int = setting(0, SEED)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    features: FeaturesConfig = dataclasses.field(default_factory=FeaturesConfig)
    network: RandomNetworkConfig = dataclasses.field(
        default_factory=RandomNetworkConfig
    )
    coreset: CoresetConfig = dataclasses.field(default_factory=CoresetConfig)
    rfad: RFADConfig = dataclasses.field(default_factory=RFADConfig)
    kip: KIPConfig = dataclasses.field(default_factory=KIPConfig)
    frepo: FRePoConfig = dataclasses.field(default_factory=FRePoConfig)
    matching: MatchingConfig = dataclasses.field(default_factory=MatchingConfig)
    siamese: SiameseConfig = dataclasses.field(default_factory=SiameseConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    teacher: TeacherConfig = dataclasses.field(default_factory=TeacherConfig)
    views: ViewsConfig = dataclasses.field(default_factory=ViewsConfig)
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    active: ActiveConfig = dataclasses.field(default_factory=ActiveConfig)
