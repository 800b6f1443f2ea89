"""Settings of the clips: data, features, augmentation."""

import dataclasses

from audiodd_jax.config.constraints import (
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    one_of,
    setting,
)


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
      processes: worker processes for decoding and features; 0: chosen by the amount of
        work.
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
    processes: int = setting(0, NOT_NEGATIVE)
    storage: str = setting("auto", one_of("auto", "device", "host"))
    cache_dir: str = ""


@dataclasses.dataclass
class FeaturesConfig:
    """Log-mel spectrograms of ``n_mels`` x ``frames``.

    Attributes:
      sample_rate: sample rate in Hz; 0: the most common rate of the recordings.
      clip_seconds: length that every clip is padded or cropped to; 0: the 95th
        percentile of the recordings' lengths.
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
        features independent of the recording level) or ``absolute`` (a full-scale bin).
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
    clip_reference: str = setting("peak", one_of("peak", "absolute"))
    align: str = setting("start", one_of("start", "center", "repeat"))
    normalization: str = setting("global", one_of("global", "per_bin"))


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
