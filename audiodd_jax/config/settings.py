"""Settings of clips, trained networks and active learning; constraints of settings."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from audiodd_jax.config import extensions
from audiodd_jax.config.names import ACQUISITIONS, COVERING, ENCODERS
from audiodd_jax.config.packing import bytes_of, is_factor


class Constraint(NamedTuple):
    """A constraint of a setting, stored as metadata of its field.

    Attributes:
      holds: returns whether a value is allowed.
      text: completes the error message "the setting must be ...".
    """

    holds: Callable[[Any], bool]
    text: str


AT_LEAST_ONE = Constraint(lambda value: value >= 1, "at least 1")
POSITIVE = Constraint(lambda value: value > 0, "positive")
NOT_NEGATIVE = Constraint(lambda value: value >= 0, "at least 0")
SHARE = Constraint(lambda value: 0 <= value <= 1, "between 0 and 1")
BELOW_ONE = Constraint(lambda value: 0 <= value < 1, "at least 0 and below 1")
FACTOR = Constraint(
    is_factor, "a number of at least 1, or two of them as in 2x2 or 2x2:1"
)
BYTES = Constraint(
    lambda value: not value or bytes_of(value) > 0,
    "a number of bytes such as 16kB, 64KiB or 1MB",
)
SEED = Constraint(lambda value: 0 <= value < 2**32, "at least 0 and below 2**32")

NETWORKS = ("convnet", "resnet18", "linear")
NETWORK = Constraint(
    lambda value: value in NETWORKS or ":" in value,
    f"{', '.join(NETWORKS)} or package.module:factory",
)
STARTS = ("real", "herding", "k_center", "noise")
INITIAL = Constraint(
    lambda value: value in STARTS or value.endswith(".npz"),
    f"{', '.join(STARTS)} or the path of a coreset's .npz",
)


def one_of(*choices: str) -> Constraint:
    """Allows the given names."""
    return Constraint(lambda value: value in choices, " or ".join(choices))


def installed_or(group: str, *choices: str) -> Constraint:
    """Allows the given names, and those that installed packages add to a group."""
    return Constraint(
        lambda value: value in choices or value in extensions.names(group),
        f"{' or '.join(choices)}, or one that an installed package adds to {group}",
    )


def listed(group: str, *choices: str) -> Constraint:
    """Allows comma-separated names of the kind that ``installed_or`` allows."""
    one = installed_or(group, *choices)
    return Constraint(
        lambda value: all(map(one.holds, filter(None, value.split(",")))),
        f"comma-separated names: {one.text}",
    )


def setting(default: Any, constraint: Constraint) -> Any:
    """Returns a dataclass field with a default and a constraint."""
    return dataclasses.field(default=default, metadata={"constraint": constraint})


@dataclasses.dataclass
class DataConfig:
    """The recordings and their splits.

    Attributes:
      name: a dataset of the registry.
      variant: variant of a dataset that has several; empty: the first.
      data_dir: folder or published archive (or CSV, for ``folder``) with the
        recordings; empty: the dataset's folder in the cache.
      fold: test fold, for datasets with folds; 0: the last one.
      test_fraction: fraction of each class held out for testing, if the data has no
        test split.
      validation_fraction: fraction of the training split that is held out for model
        selection.
      split_seed: seed of the random splits.
      skip_bad_files: leave out files that cannot be decoded, instead of refusing them.
      allow_partial: accept an incomplete published dataset.
      tags: ``overlapping``: segments of a recording that overlap have the tags of each
        other; empty: such segments are refused.
      background: length in seconds of windows that no segment covers, which become the
        class ``background``; 0: none.
      processes: worker processes for decoding and features; 0: chosen by the amount of
        work.
      balance: batches, losses and solved labels weigh all ``classes`` the same, or all
        clips (``none``); ``auto``: classes where the largest has more than 1.5 times
        the training clips of the smallest.
      one_class: accept a folder of a single class, which joins those of a coreset.
      storage: where training features are kept: ``device``, ``host`` (batches are
        streamed from the cache), or ``auto`` (on the device if they fit).
      cache_dir: folder for downloads and features; empty: ``$AUDIODD_CACHE``, or the
        user's cache folder. Not recorded with a run.
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
    tags: str = setting("", one_of("", "overlapping"))
    background: float = setting(0.0, NOT_NEGATIVE)
    processes: int = setting(0, NOT_NEGATIVE)
    balance: str = setting("auto", one_of("auto", "classes", "none"))
    one_class: bool = False
    storage: str = setting("auto", one_of("auto", "device", "host"))
    cache_dir: str = ""


@dataclasses.dataclass
class FeaturesConfig:
    """Log-mel spectrograms of ``n_mels`` x ``frames``.

    Attributes:
      sample_rate: sample rate in Hz; 0: the most common rate of the recordings.
      clip_seconds: length that every clip is padded or cropped to; 0: the 95th
        percentile of the recordings' lengths, but at most eight times their median.
      frames: number of frames ``t``; the hop is ``ceil(clip / frames)`` samples.
      n_mels: number of mel bins ``f``.
      window_seconds: length of the Hann window.
      n_fft: length of the Fourier transform; 0: the smallest power of two that holds a
        window.
      f_min: lowest mel frequency in Hz.
      f_max: highest mel frequency in Hz; 0: half the sample rate.
      mel_scale: ``slaney`` or ``htk``.
      top_db: dynamic range kept below the clip's loudest bin, in dB.
      clip_reference: level of 0 dB: ``peak`` (each clip's loudest bin, which makes
        features independent of the recording level), ``absolute`` (a full-scale bin) or
        ``level`` (a full-scale bin, with the floor ``top_db`` below the loudest bin).
      align: ``start`` or ``center``: how short clips are padded and long ones cropped;
        ``repeat``: repeat short clips, and crop long ones at the start.
      normalization: standardise by statistics of the training split, ``global`` or
        ``per_bin``.
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
    clip_reference: str = setting("peak", one_of("peak", "absolute", "level"))
    align: str = setting("start", one_of("start", "center", "repeat"))
    normalization: str = setting("global", one_of("global", "per_bin"))


ENCODER = Constraint(
    lambda value: (
        not value
        or value in ENCODERS
        or value in extensions.names(extensions.ENCODERS)
        or ":" in value
        or value.endswith((".onnx", ".npz"))
    ),
    f"{', '.join(ENCODERS)}, package.module:factory, an ONNX file, the "
    "networks.npz of audiodd train, or one that an installed package adds to "
    f"{extensions.ENCODERS}",
)
LAYOUT = Constraint(
    lambda value: sorted(value.replace("1", "")) == ["f", "n", "t"],
    "an order of n (clips), f (mel bins), t (frames) and 1, as in n1ft",
)


@dataclasses.dataclass
class EncoderConfig:
    """A trained network that embeds clips, which a coreset is made for.

    Attributes:
      name: ``speech_embedding``, ``package.module:factory``, an ONNX file, the
        ``networks.npz`` of ``audiodd train``, or the name of an installed package's
        encoder; empty: none. It sets the features as it needs them.
      windows: embeddings of several windows of a clip: their ``mean``, or all of them
        in a ``sequence``.
      distil: ``spectrograms``, or ``embeddings`` alone.
      views: random views of each spectrogram per step, augmented as ``views`` says; 0:
        the spectrogram itself.
      input: tensor of an ONNX file that is given; empty: the model's input.
      output: tensor of an ONNX file with the embedding; empty: its first output.
      layout: axes of that input: ``n`` clips, ``f`` mel bins, ``t`` frames and ``1``.
      scale: factor of a spectrogram in dB, for an ONNX file.
      offset: added after the factor, for an ONNX file.
      hop: frames from window to window, for an ONNX file; 0: half a window.
    """

    name: str = setting("", ENCODER)
    windows: str = setting("mean", one_of("mean", "sequence"))
    distil: str = setting("spectrograms", one_of("spectrograms", "embeddings"))
    views: int = setting(0, NOT_NEGATIVE)
    input: str = ""
    output: str = ""
    layout: str = setting("n1ft", LAYOUT)
    scale: float = 1.0
    offset: float = 0.0
    hop: int = setting(0, NOT_NEGATIVE)


@dataclasses.dataclass
class AugmentConfig:
    """Augmentations, drawn for each clip; 0 disables one.

    Attributes:
      time_shift: maximum shift along time, as a fraction of the frames.
      gain_db: maximum change of level, in dB.
      noise_db: maximum standard deviation of added noise, in dB.
      background: fraction of the clips to which background noise is added, for datasets
        that include recordings of it.
      background_snr_db: minimum ratio of the clip's loudest bin to the noise, in dB;
        each clip's ratio is drawn between this and 30 dB more.
      time_mask: maximum width of a band of frames set to silence, as a fraction of the
        frames.
      frequency_mask: maximum width of a band of mel bins set to silence, as a fraction
        of the bins.
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

    name: str = setting("convnet", NETWORK)
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
        ``margin``, ``vote_entropy``, ``consensus_kl``, ``k_center``, ``badge``,
        ``typiclust``, ``probcover`` or ``medoids``.
      budgets: increasing sizes of the labelled pool: fractions of the training split
        (``0.2`` or ``20%``), or clips per class (``10/class``).
      initial: size of the initial labelled pool, drawn at random.
      initial_draw: ``balanced`` over classes, or ``uniform``.
      batch: maximum number of clips per query; 0: enough to reach the next budget.
      passes: forward passes with Monte Carlo dropout.
      committee: networks that ``vote_entropy`` and ``consensus_kl`` train per round.
      diversity: with scores: a batch is chosen from so many times as many clips, those
        with the highest scores, by weighted k-means; 0: the highest scores alone.
      cost: what a label costs: the same for all ``clips``, or a clip's ``seconds``, by
        which its score is divided.
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
    committee: int = setting(4, Constraint(lambda value: value >= 2, "at least 2"))
    diversity: int = setting(0, NOT_NEGATIVE)
    cost: str = setting("clips", one_of("clips", "seconds"))
    chunk: int = setting(128, AT_LEAST_ONE)
    warm_start: bool = False
    count_validation: bool = False


@dataclasses.dataclass
class SessionConfig:
    """A labelling session of ``audiodd label``.

    Attributes:
      sounds: folder of the recordings to label.
      known: folder or table of recordings whose labels are known.
      tags: recordings have any number of tags instead of one class.
      classes: the first classes, in the order of their keys; others may be added.
      batch: recordings per batch.
      budget: answers after which the session ends; 0: all recordings.
      validation: share of the recordings that are drawn at random for validation, and
        never trained on.
      first: chooses recordings while fewer than two classes are known: ``typiclust``,
        ``probcover`` or ``medoids``.
    """

    sounds: str = ""
    known: str = ""
    tags: bool = False
    classes: tuple[str, ...] = ()
    batch: int = setting(10, AT_LEAST_ONE)
    budget: int = setting(0, NOT_NEGATIVE)
    validation: float = setting(0.2, BELOW_ONE)
    first: str = setting("typiclust", one_of(*COVERING))
