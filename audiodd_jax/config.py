"""Every setting and its default, as dataclasses, and what values they may take.

This is the single source of every default. The module imports neither JAX nor NumPy,
so that ``audiodd help`` answers at once.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from audiodd_jax.runtime.errors import UserError


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
      chunk: inputs that a network processes at once; 0: all.
    """

    depth: int = 3
    width: int = 256
    readout: str = "flatten"
    output_dim: int = 4096
    weight_variance: float = 2.0
    bias_std: float = 0.1
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
    """

    samples_per_class: int = 10
    init: str = "real"
    learn_labels: bool = True
    preconditioner: bool = False


@dataclasses.dataclass
class RFADConfig:
    """The loss of random feature approximation distillation.

    Attributes:
      networks: random networks a step.
      loss: ``mse`` or ``platt`` (cross-entropy of scaled predictions).
      regularizer: lambda, relative to the mean diagonal of the coreset's kernel.
    """

    networks: int = 8
    loss: str = "mse"
    regularizer: float = 5e-3


@dataclasses.dataclass
class OptimizerConfig:
    """AdaBelief on the coreset.

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
    """

    steps: int = 1000
    batch_size: int = 1280
    log_every: int = 10
    eval_every: int = 50
    checkpoint_every: int = 50
    patience: int = 0


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
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)


_CHOICES = {
    "method": ("rfad",),
    "data.storage": ("auto", "device", "host"),
    "features.mel_scale": ("slaney", "htk"),
    "features.clip_reference": ("peak", "absolute"),
    "features.align": ("start", "center", "repeat"),
    "features.normalization": ("global", "per_bin"),
    "network.readout": ("flatten", "dense", "time_mean"),
    "coreset.init": ("real", "noise"),
    "rfad.loss": ("mse", "platt"),
    "optimizer.schedule": ("constant", "cosine"),
}
_AT_LEAST_ONE = (
    "coreset.samples_per_class",
    "network.depth",
    "network.width",
    "network.output_dim",
    "rfad.networks",
    "loop.steps",
    "loop.batch_size",
    "loop.log_every",
    "loop.checkpoint_every",
    "evaluation.networks",
    "evaluation.seeds",
    "evaluation.batch_size",
)
_POSITIVE = ("rfad.regularizer", "optimizer.learning_rate", "features.top_db")
_NOT_NEGATIVE = (
    "seed",
    "data.fold",
    "data.split_seed",
    "data.processes",
    "network.chunk",
    "network.bias_std",
    "loop.eval_every",
    "loop.patience",
    "optimizer.platt_learning_rate",
    "augment.gain_db",
    "augment.noise_db",
)
_SHARES = (
    "augment.time_shift",
    "augment.background",
    "augment.time_mask",
    "augment.frequency_mask",
)


def names(config: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from names(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def get(config: Any, name: str) -> Any:
    """The field of ``config`` with a dotted name."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def replace(config: Config, changes: dict[str, Any]) -> Config:
    """A copy of ``config`` with fields changed by their dotted names.

    Raises:
      UserError: there is no such field.
    """
    result = from_dict(dataclasses.asdict(config))
    known = set(names(config))
    for name, value in changes.items():
        if name not in known:
            raise UserError(f"there is no setting {name!r}")
        *groups, field = name.split(".")
        setattr(get(result, ".".join(groups)) if groups else result, field, value)
    return result


def from_dict(values: dict[str, Any]) -> Config:
    """Inverse of ``dataclasses.asdict``, ignoring fields of other versions."""

    def build(kind: type, values: dict[str, Any]) -> Any:
        arguments = {}
        for field in dataclasses.fields(kind):
            if field.name in values:
                value = values[field.name]
                nested = dataclasses.is_dataclass(field.type)
                arguments[field.name] = build(field.type, value) if nested else value
        return kind(**arguments)

    return build(Config, values)


def validate(config: Config) -> None:
    """Checks every setting that can be checked without the data.

    Raises:
      UserError: naming the first setting that cannot be, and what it may be.
    """

    def require(fields: Iterable[str], holds: Callable[[Any], bool], what: str) -> None:
        for name in fields:
            if not holds(get(config, name)):
                raise UserError(f"{name} must be {what}, not {get(config, name)!r}")

    for name, choices in _CHOICES.items():
        require([name], lambda value, c=choices: value in c, " or ".join(choices))
    require(_AT_LEAST_ONE, lambda value: value >= 1, "at least 1")
    require(_POSITIVE, lambda value: value > 0, "positive")
    require(_NOT_NEGATIVE, lambda value: value >= 0, "at least 0")
    require(["seed"], lambda value: value < 2**32, "below 2**32")
    require(_SHARES, lambda value: 0 <= value <= 1, "between 0 and 1")
