"""Any prepared audio data set of TensorFlow Datasets: ``--dataset=tfds:NAME``.

It lies in ``--data_dir``, the ``data_dir`` of TFDS (by default its own), stored as
``array_record``, from which TFDS reads without TensorFlow. Only features that need
TensorFlow themselves, as ``tfds.features.Audio`` does, ask for it.

Its features are ``audio``, samples of one or several channels, and ``label``; the
sample rate is that of the feature, or a feature ``rate`` or ``sample_rate``.
"""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from audiodd_jax.config import DataConfig
from audiodd_jax.data import audio, datasets
from audiodd_jax.data.recordings import (
    Decoded,
    Recordings,
    Source,
    fingerprint_tree,
)
from audiodd_jax.data.tree import SPLIT_NAMES
from audiodd_jax.errors import UserError
from audiodd_jax.runtime import progress

_RATES = ("rate", "sample_rate", "sampling_rate")
_GROUPS = ("speaker_id", "speaker", "group")
_FULL_SCALE = 32768


def open_source(config: DataConfig, cache_dir: Path) -> Source:
    """Finds the data set in ``config.data_dir``; ``config.variant`` is its config.

    Raises:
      UserError: it is not there, or needs TensorFlow.
    """
    name = config.name.removeprefix(datasets.TFDS)
    asked = f"{name}/{config.variant}" if config.variant else name
    root = config.data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    builder = _builder(asked, str(Path(root).expanduser()))
    entry = datasets.lookup(config.name)
    place = Path(builder.data_dir)
    return Source(
        f"tfds-{asked.replace('/', '-')}",
        str(builder.version),
        builder.info.redistribution_info.license or entry.licence,
        fingerprint_tree(place),
        lambda: _recordings(place, name),
    )


def _builder(name: str, root: str) -> Any:
    try:
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=root)
    except ImportError as error:
        raise _needs_tensorflow(name) from error
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        raise UserError(
            f"TFDS has not prepared {name} in {root}: prepare it there with "
            "file_format='array_record', or give its --data_dir"
        ) from error


def _needs_tensorflow(name: str) -> UserError:
    return UserError(
        f"a feature of {name} needs TensorFlow, which is not installed: pip install "
        "tensorflow"
    )


class _Part(NamedTuple):
    """A split: its name, and the number of its examples."""

    name: str
    length: int


class _Reader:
    """index -> (waveform, rate); the records are reopened in other processes."""

    def __init__(self, place: Path, parts: list[_Part], rate: int):
        self._place, self._parts, self._rate = place, parts, rate

    @functools.cached_property
    def sources(self) -> list[Any]:
        """The splits' examples."""
        builder = tfds.builder_from_directory(str(self._place))
        return [builder.as_data_source(part.name) for part in self._parts]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "sources"}

    def __call__(self, index: int) -> Decoded:
        for part, source in zip(self._parts, self.sources, strict=True):
            if index < part.length:
                return self.decoded(source[index])
            index -= part.length
        raise IndexError(index)

    def decoded(self, example: Mapping[str, Any]) -> Decoded:
        """The mono waveform of an example, and its sample rate in Hz.

        Raises:
          BadAudioError: it has no samples, or no rate is known.
        """
        samples = np.asarray(example["audio"])
        if np.issubdtype(samples.dtype, np.integer):
            samples = samples / np.float32(_FULL_SCALE)
        samples = samples.astype(np.float32)
        mono = samples.mean(1) if samples.ndim == 2 else samples
        rate = next((int(example[k]) for k in _RATES if k in example), self._rate)
        if not rate:
            raise audio.BadAudioError(f"{self._place} does not say its sample rate")
        if mono.ndim != 1 or not mono.size or not np.isfinite(mono).all():
            raise audio.BadAudioError(f"an example of {self._place} holds no sound")
        return mono, rate


def _recordings(place: Path, name: str) -> Recordings:
    """The index, by reading every example once.

    Raises:
      UserError: it has no audio or no label, or is stored in another format.
    """
    builder = tfds.builder_from_directory(str(place))
    features = builder.info.features
    if lacking := [key for key in ("audio", "label") if key not in features]:
        raise UserError(
            f"{name} has no feature {' and '.join(lacking)}, but {', '.join(features)}"
        )
    parts = [_Part(k, v.num_examples) for k, v in sorted(builder.info.splits.items())]
    # Audio features know their rate; others have none.
    rate = getattr(features["audio"], "sample_rate", None) or 0
    reader = _Reader(place, parts, rate)
    try:
        sources = reader.sources
    except (NotImplementedError, ValueError) as error:
        raise UserError(
            f"{place} is not stored as array_record: prepare it again with "
            "file_format='array_record'"
        ) from error
    total = sum(part.length for part in parts)
    columns: dict[str, list] = {k: [] for k in ("label", "group", "seconds", "rate")}
    bad: dict[int, audio.BadAudioError] = {}
    label_of = getattr(features["label"], "int2str", None)
    with progress.ticking(progress.bar(total, desc="reading", unit="clip")) as bar:
        for source in sources:
            for example in source:
                label = example["label"]
                columns["label"].append(label_of(label) if label_of else _text(label))
                group = next((example[k] for k in _GROUPS if k in example), "")
                columns["group"].append(_text(group))
                seconds, its_rate = _measured(
                    reader, example, bad, len(columns["rate"])
                )
                columns["seconds"].append(seconds)
                columns["rate"].append(its_rate)
                bar.update()
    class_names = tuple(sorted(set(columns["label"])))
    splits = [SPLIT_NAMES.get(part.name, "") for part in parts]
    lengths = [part.length for part in parts]
    numbers = np.concatenate([np.arange(length) for length in lengths])
    owners = np.repeat([part.name for part in parts], lengths)
    return Recordings(
        class_names=class_names,
        names=tuple(f"{part}-{i:07d}" for part, i in zip(owners, numbers, strict=True)),
        labels=np.searchsorted(class_names, columns["label"]).astype(np.int32),
        splits=np.repeat(splits, lengths),
        folds=np.zeros(total, np.int32),
        groups=np.array(columns["group"], str),
        load=reader,
        read_headers=lambda: audio.Headers(
            np.array(columns["seconds"], np.float32),
            np.array(columns["rate"], np.int32),
            bad,
        ),
    )


def _measured(
    reader: _Reader, example: Any, bad: dict[int, audio.BadAudioError], index: int
) -> tuple[float, int]:
    """Seconds and rate of an example; zeros, and an entry of ``bad``, without any."""
    try:
        waveform, rate = reader.decoded(example)
    except audio.BadAudioError as error:
        bad[index] = error
        return 0.0, 0
    return waveform.size / rate, rate


def _text(value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
