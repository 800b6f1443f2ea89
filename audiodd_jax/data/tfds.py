"""Audio datasets that TensorFlow Datasets (TFDS) has prepared: ``--dataset=tfds:NAME``.

They are in ``--data_dir``, the ``data_dir`` of TFDS (by default its own), stored as
``array_record``, which TFDS reads without TensorFlow. Only features that need
TensorFlow themselves, such as ``tfds.features.Audio``, require it.

The features of a dataset are ``audio``, samples of one or several channels, and
``label``. The sample rate is that of the audio feature, or a feature ``rate`` or
``sample_rate``.
"""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from audiodd_jax.config import DataConfig
from audiodd_jax.config.user_paths import expanded
from audiodd_jax.data import audio, datasets
from audiodd_jax.data.recordings import Decoded, Recordings, Source, fingerprint_tree
from audiodd_jax.data.tables import split_name
from audiodd_jax.errors import UserError
from audiodd_jax.runtime import progress

_RATES = ("rate", "sample_rate", "sampling_rate")
_FULL_SCALE = 32768


def open_source(config: DataConfig) -> Source:
    """Finds the dataset in ``config.data_dir``; ``config.variant`` is its TFDS config.

    Raises:
      UserError: it is not available, or needs TensorFlow.
    """
    name = config.name.removeprefix(datasets.TFDS)
    full_name = f"{name}/{config.variant}" if config.variant else name
    root = config.data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    root = expanded(root)
    try:
        builder = tfds.core.read_only_builder.builder_from_files(
            full_name, data_dir=root
        )
    except ImportError as error:
        raise UserError(
            f"a feature of {full_name} needs TensorFlow, which is not installed: pip "
            "install tensorflow"
        ) from error
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        raise UserError(
            f"TFDS has not prepared {full_name} in {root}: prepare it with "
            "file_format='array_record', or pass its --data_dir"
        ) from error
    licence = builder.info.redistribution_info.license
    return Source(
        f"tfds-{full_name.replace('/', '-')}",
        str(builder.version),
        licence or datasets.lookup(config.name).licence,
        fingerprint_tree(Path(builder.data_dir)),
        lambda: _read(builder, name),
    )


@functools.cache
def _sources(folder: Path, splits: tuple[str, ...]) -> list[Any]:
    """The examples of each split; every process opens the records once."""
    builder = tfds.builder_from_directory(str(folder))
    return [builder.as_data_source(split) for split in splits]


def _load(folder: Path, splits: tuple[str, ...], rate: int, index: int) -> Decoded:
    """Decodes the example at an index."""
    for source in _sources(folder, splits):
        if index < len(source):
            return _decode(source[index], folder, rate)
        index -= len(source)
    raise IndexError(index)


def _decode(example: Mapping[str, Any], folder: Path, rate: int) -> Decoded:
    """Decodes an example; ``rate`` is that of examples that have none; 0: unknown."""
    samples = np.asarray(example["audio"])
    if np.issubdtype(samples.dtype, np.integer):
        samples = samples / np.float32(_FULL_SCALE)
    samples = samples.astype(np.float32)
    mono = samples.mean(1) if samples.ndim == 2 else samples
    rate = next((int(example[k]) for k in _RATES if k in example), rate)
    if not rate:
        raise audio.BadAudioError(f"{folder} has no sample rate")
    if mono.ndim != 1 or not mono.size or not np.isfinite(mono).all():
        raise audio.BadAudioError(f"an example of {folder} holds no sound")
    return mono, rate


def _read(builder: Any, name: str) -> Recordings:
    """The index, by reading every example once."""
    folder, features = Path(builder.data_dir), builder.info.features
    if lacking := [key for key in ("audio", "label") if key not in features]:
        raise UserError(
            f"{name} has no feature {' and '.join(lacking)}, but {', '.join(features)}"
        )
    splits = tuple(sorted(builder.info.splits))
    # Audio features know their rate; others have none.
    usual_rate = getattr(features["audio"], "sample_rate", 0) or 0
    try:
        sources = _sources(folder, splits)
    except (NotImplementedError, ValueError) as error:
        raise UserError(
            f"{folder} is not stored as array_record: prepare it again with "
            "file_format='array_record'"
        ) from error
    lengths = [len(source) for source in sources]
    total = sum(lengths)
    headers = audio.Headers(np.zeros(total, np.float32), np.zeros(total, np.int32), {})
    names, labels, groups = [], [], []
    label_name = getattr(features["label"], "int2str", _text)
    # The narrowest first: a group may hold several speakers.
    groups_by_name = ("speaker_id", "speaker", "group")
    group = next((name for name in groups_by_name if name in features), "")
    with progress.bar(total, desc="reading", unit="clip") as bar:
        for split, source in zip(splits, sources, strict=True):
            for i, example in enumerate(source):
                index = len(names)
                names.append(f"{split}-{i:07d}")
                labels.append(label_name(example["label"]))
                groups.append(_text(example[group]) if group else "")
                try:
                    waveform, rate = _decode(example, folder, usual_rate)
                    headers.seconds[index] = waveform.size / rate
                    headers.rates[index] = rate
                except audio.BadAudioError as error:
                    headers.bad[index] = error
                bar.update()
    class_names = tuple(sorted(set(labels)))
    return Recordings(
        class_names=class_names,
        names=tuple(names),
        labels=np.searchsorted(class_names, labels).astype(np.int32),
        splits=np.repeat([split_name(split) for split in splits], lengths),
        folds=np.zeros(total, np.int32),
        groups=np.array(groups, str),
        load=functools.partial(_load, folder, splits, usual_rate),
        read_headers=lambda: headers,
    )


def _text(value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
