"""Every setting and its default, as dataclasses.

This is the single source of every default. The module imports neither JAX nor NumPy,
so that ``audiodd help`` answers at once.
"""

import dataclasses


@dataclasses.dataclass
class DataConfig:
    """Which recordings, and how they are split.

    Attributes:
      name: a dataset of the registry.
      variant: which configuration of a dataset that has several; empty: its first.
      data_dir: folder or published archive (or CSV, for ``folder``) with the
        recordings; empty: the dataset's own place in the cache.
      fold: the fold that tests, for datasets with folds; 0: the last one.
      test_fraction: share of each class that tests where the data has no split.
      validation_fraction: share of the training clips held out for model selection.
      split_seed: of the validation split (and of the test split where there is none).
      skip_bad_files: leave out files that cannot be decoded, instead of refusing.
      allow_partial: use what is there of a published dataset, instead of refusing one
        that is not complete.
      processes: that decode and compute features; 0: as many as the work is worth.
      storage: where training features lie: ``device``, ``host`` (batches are streamed
        from the cache), or ``auto`` (on the device where they fit).
    """

    name: str = "tones"
    variant: str = ""
    data_dir: str = ""
    fold: int = 0
    test_fraction: float = 0.2
    validation_fraction: float = 0.1
    split_seed: int = 0
    skip_bad_files: bool = False
    allow_partial: bool = False
    processes: int = 0
    storage: str = "auto"


@dataclasses.dataclass
class FeaturesConfig:
    """Waveform to log-mel spectrogram of ``n_mels`` x ``frames``.

    Attributes:
      sample_rate: in Hz; 0: the most common rate of the recordings.
      clip_seconds: length that every clip is padded or cut to; 0: the 95th percentile
        of the recordings' lengths.
      frames: number of frames ``t``; the hop is ``ceil(clip / frames)`` samples.
      n_mels: number of mel bins ``f``.
      window_seconds: length of the Hann window.
      n_fft: length of the Fourier transform; 0: the power of two that holds a window.
      f_min: lowest mel frequency in Hz.
      f_max: highest, in Hz; 0: half the sample rate.
      mel_scale: ``slaney`` or ``htk``.
      top_db: dynamic range kept below the clip's loudest bin, in dB.
      clip_reference: level of 0 dB: ``peak`` (each clip's loudest bin, so that the
        recording level does not matter) or ``absolute`` (a full-scale bin).
      align: where a short clip lies and what of a long one is kept: ``start``,
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
    mel_scale: str = "slaney"
    top_db: float = 80.0
    clip_reference: str = "peak"
    align: str = "start"
    normalization: str = "global"


@dataclasses.dataclass
class RandomNetworkConfig:
    """The random networks that RFAD draws.

    Attributes:
      depth: blocks of [3x3 conv, ReLU, 2x2 average pool].
      width: channels of each block.
      readout: ``flatten`` or ``time_mean`` (analytic), or ``dense`` (a random head).
      output_dim: outputs M of the dense head.
      weight_variance: kernels are N(0, weight_variance / fan_in).
      bias_std: biases are N(0, bias_std^2).
      precision: of features: ``float32``, or ``tf32`` or ``bfloat16`` operands with
        float32 sums; kernels and what follows are never less than float32.
      chunk: inputs that a network processes at once; 0: as many as the device's
        memory is predicted to hold.
    """

    depth: int = 3
    width: int = 256
    readout: str = "flatten"
    output_dim: int = 4096
    weight_variance: float = 2.0
    bias_std: float = 0.1
    precision: str = "float32"
    chunk: int = 0


@dataclasses.dataclass
class CoresetConfig:
    """The coreset that is learnt.

    Attributes:
      samples_per_class: spectrograms a class (IPC).
      init: ``real`` (random training clips, class-balanced) or ``noise``.
      learn_labels: learn the soft labels too.
      preconditioner: learn the images through factored linear maps, mel x mel and
        time x time.
      factor: spectrograms that each stored one holds, shorter along time and one after
        the other; they are stretched to full length before use and share its label, so
        that what is stored does not grow.
    """

    samples_per_class: int = 10
    init: str = "real"
    learn_labels: bool = True
    preconditioner: bool = False
    factor: int = 1


@dataclasses.dataclass
class RFADConfig:
    """The loss of random feature approximation distillation.

    Attributes:
      networks: random networks a step.
      loss: ``mse`` or ``platt`` (cross-entropy of scaled predictions).
      regularizer: lambda, relative to the mean diagonal of the coreset's kernel.
      kernel_precision: of kernels, solve and loss: ``float32``, or ``float64`` where
        the device has it.
    """

    networks: int = 8
    loss: str = "mse"
    regularizer: float = 5e-3
    kernel_precision: str = "float32"


@dataclasses.dataclass
class KIPConfig:
    """Kernel inducing points: RFAD's loss (see ``rfad``) with the exact kernel.

    Attributes:
      kernel: ``nngp``, which RFAD approximates, or ``ntk``.
      pairs: pairs of spectrograms whose kernel is computed at once; 0: as many as the
        device's memory is predicted to hold.
    """

    kernel: str = "nngp"
    pairs: int = 0


@dataclasses.dataclass
class MatchingConfig:
    """Gradient matching (``dc``, ``dsa``) and distribution matching (``dm``).

    Attributes:
      depth: blocks of the ConvNet that is matched.
      width: its channels.
      norm: ``instance`` as published, ``group`` or ``none``.
      real_per_class: real clips of each class a step; repeated where there are fewer.
      optimizer: of the images: ``sgd`` as published, or ``adam``, which needs fewer
        steps.
      learning_rate: of the images.
      momentum: of the images; Adam's decay of the first moment.
      outer_loop: steps with one network, trained on the coreset between them; 0: as
        published for ``samples_per_class``.
      inner_loop: epochs that it trains between two steps; 0: as published.
      network_learning_rate: of those.
      network_batch: spectrograms a batch of those.
    """

    depth: int = 3
    width: int = 128
    norm: str = "instance"
    real_per_class: int = 256
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.5
    outer_loop: int = 0
    inner_loop: int = 0
    network_learning_rate: float = 0.01
    network_batch: int = 256


@dataclasses.dataclass
class SiameseConfig:
    """Differentiable changes of real and synthetic clips alike, for ``dsa`` and ``dm``.

    Each is drawn once for all clips of a class; 0 switches one off.

    Attributes:
      mode: ``one`` of them a draw, as published, or ``all`` of them.
      time_shift: largest shift along time, as a share of the frames.
      time_stretch: largest stretch or squeeze of time about the middle, as a share.
      frequency_shift: largest shift along frequency, as a share of the mel bins.
      time_mask: widest band of frames set to silence, as a share of the frames.
      frequency_mask: widest band of mel bins set to silence, as a share of the bins.
      gain_db: largest change of level, in dB.
      noise_db: largest standard deviation of added noise, in dB.
    """

    mode: str = "one"
    time_shift: float = 0.15
    time_stretch: float = 0.15
    frequency_shift: float = 0.05
    time_mask: float = 0.3
    frequency_mask: float = 0.25
    gain_db: float = 6.0
    noise_db: float = 4.0


@dataclasses.dataclass
class OptimizerConfig:
    """AdaBelief on the coreset, for ``rfad`` and ``kip``.

    Attributes:
      learning_rate: of images and labels.
      platt_learning_rate: of the log-scale of the Platt loss.
      schedule: ``constant`` or ``cosine`` (to zero at the last step).
    """

    learning_rate: float = 1e-2
    platt_learning_rate: float = 1e-2
    schedule: str = "constant"


@dataclasses.dataclass
class AugmentConfig:
    """Random changes of the real batch, each drawn anew a clip; 0 switches one off.

    Attributes:
      time_shift: largest shift along time, as a share of the frames.
      gain_db: largest change of level, in dB.
      noise_db: largest standard deviation of added noise, in dB.
      background: share of the clips to which background noise is added, for datasets
        that bring some.
      background_snr_db: least level of such a clip's loudest bin over the noise's, in
        dB; drawn up to 30 dB above it.
      time_mask: widest band of frames set to silence, as a share of the frames.
      frequency_mask: widest band of mel bins set to silence, as a share of the bins.
    """

    time_shift: float = 0.0
    gain_db: float = 0.0
    noise_db: float = 0.0
    background: float = 0.0
    background_snr_db: float = 0.0
    time_mask: float = 0.0
    frequency_mask: float = 0.0


@dataclasses.dataclass
class LoopConfig:
    """How long, and how often what is written.

    Attributes:
      steps: distillation steps.
      batch_size: real clips a step (all of them where there are fewer).
      log_every: steps in one compiled chunk, after which metrics reach the host.
      eval_every: steps between validations; 0: only at the end.
      checkpoint_every: steps between checkpoints.
      patience: validations without improvement before stopping; 0: never stop early.
      keep: the coreset of the ``best`` validation (by kernel regression), or the
        ``last``.
    """

    steps: int = 1000
    batch_size: int = 1280
    log_every: int = 10
    eval_every: int = 50
    checkpoint_every: int = 50
    patience: int = 0
    keep: str = "best"


@dataclasses.dataclass
class EvaluationConfig:
    """Kernel regression with fresh random networks.

    Attributes:
      networks: random networks a seed.
      width: their width; 0: that of ``network.width``.
      seeds: independent draws of the networks; accuracy is their mean.
      batch_size: clips scored at once.
    """

    networks: int = 8
    width: int = 0
    seeds: int = 3
    batch_size: int = 512


@dataclasses.dataclass
class ModelConfig:
    """The network that is trained.

    Attributes:
      name: ``convnet``, ``resnet18`` or ``linear``.
      depth: blocks of the ConvNet.
      width: channels of the ConvNet's blocks, or of the ResNet's first stage.
      norm: ``batch``, ``instance``, ``group`` or ``none``.
      readout: of the last feature map: ``flatten``, ``time_mean`` or ``mean``.
      head: weights of the last layer at the start: ``zero``, so that all classes are
        equally likely, or ``random``.
      stem: of the ResNet: ``imagenet`` or ``small`` (for small spectrograms; slower).
      dropout: rate.
      dropout_place: ``everywhere`` (after blocks and before the logits) or ``head``
        (before the logits alone).
    """

    name: str = "convnet"
    depth: int = 4
    width: int = 64
    norm: str = "batch"
    readout: str = "time_mean"
    head: str = "zero"
    stem: str = "imagenet"
    dropout: float = 0.0
    dropout_place: str = "everywhere"


@dataclasses.dataclass
class TrainingConfig:
    """How a network is trained.

    Attributes:
      steps: optimisation steps.
      batch_size: clips a step; fewer where there are fewer, all batches being equal.
      seeds: networks that are trained, with the seeds ``seed``, ``seed + 1`` and on.
      parallel: seeds that are trained at once; 0: on a CPU one, elsewhere as many as
        fit the device's memory.
      optimizer: ``adamw`` or ``sgd`` (with Nesterov momentum).
      learning_rate: the highest.
      weight_decay: decoupled; of kernels alone.
      momentum: of SGD.
      warmup: share of the steps over which the learning rate rises.
      schedule: after that, ``cosine`` (to zero at the last step) or ``constant``.
      loss: ``cross_entropy`` or ``mse``.
      labels: of a coreset: ``soft`` as learnt, or ``hard``: the largest alone.
      label_scale: what soft (centred) labels are multiplied by: then they are the
        target of ``mse``, and their softmax is that of ``cross_entropy``.
      label_smoothing: share of a hard label that is spread over all classes.
      centre_outputs: train the difference from the network's output at its start
        (which is zero anyway from a ``zero`` head).
      mixup: alpha of the Beta(alpha, alpha) that mixes clips in pairs; 0: none.
      average: decay a step of the averaged weights that are used in the end; 0: none.
      precision: of the blocks' products: ``float32`` or ``bfloat16``.
      log_every: steps in one compiled chunk, after which metrics reach the host.
      eval_every: steps between validations; 0: only at the end.
      checkpoint_every: steps between checkpoints.
      patience: validations without improvement before stopping, where the best weights
        are kept; 0: never stop early, and keep the last.
      augment: random changes of each batch.
    """

    steps: int = 500
    batch_size: int = 128
    seeds: int = 3
    parallel: int = 0
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    momentum: float = 0.9
    warmup: float = 0.1
    schedule: str = "cosine"
    loss: str = "cross_entropy"
    labels: str = "soft"
    label_scale: float = 5.0
    label_smoothing: float = 0.1
    centre_outputs: bool = False
    mixup: float = 0.0
    average: float = 0.0
    precision: str = "float32"
    log_every: int = 25
    eval_every: int = 0
    checkpoint_every: int = 100
    patience: int = 0
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)


@dataclasses.dataclass
class ActiveConfig:
    """Active learning: which clips are labelled when.

    Attributes:
      acquisition: ``random``, ``max_entropy``, ``variation_ratios``, ``bald``,
        ``margin``, ``k_center`` or ``badge``.
      budgets: labelled clips at which rounds end, rising: shares of the training split
        (``0.2`` or ``20%``), or clips a class (``10/class``).
      initial: the seed set, likewise; drawn at random.
      initial_draw: ``balanced`` (as many of each class) or ``uniform``.
      batch: clips that a round labels at most; 0: as many as the next budget asks for.
      passes: Monte-Carlo passes with dropout.
      chunk: clips that a device scores at once.
      warm_start: go on from the last round's network, instead of a fresh one.
      count_validation: count the validation clips as labelled.
    """

    acquisition: str = "bald"
    budgets: tuple[str, ...] = ("20%", "30%", "40%", "60%")
    initial: str = "2/class"
    initial_draw: str = "balanced"
    batch: int = 0
    passes: int = 20
    chunk: int = 128
    warm_start: bool = False
    count_validation: bool = False


@dataclasses.dataclass
class Config:
    """The whole configuration of a run; saved with it as ``config.json``."""

    method: str = "rfad"
    seed: int = 0
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    features: FeaturesConfig = dataclasses.field(default_factory=FeaturesConfig)
    network: RandomNetworkConfig = dataclasses.field(
        default_factory=RandomNetworkConfig
    )
    coreset: CoresetConfig = dataclasses.field(default_factory=CoresetConfig)
    rfad: RFADConfig = dataclasses.field(default_factory=RFADConfig)
    kip: KIPConfig = dataclasses.field(default_factory=KIPConfig)
    matching: MatchingConfig = dataclasses.field(default_factory=MatchingConfig)
    siamese: SiameseConfig = dataclasses.field(default_factory=SiameseConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    active: ActiveConfig = dataclasses.field(default_factory=ActiveConfig)
