"""Audio datasets that TensorFlow Datasets (TFDS) has prepared: ``--dataset=tfds:NAME``.

They are in ``--data_dir``, the ``data_dir`` of TFDS (by default its own), stored as
``array_record``, which TFDS reads without TensorFlow. Only features that need
TensorFlow themselves, such as ``tfds.features.Audio``, require it.

The features of a dataset are ``audio``, samples of one or several channels, and
``label``. Labels, splits, folds and groups are read as in tables
(``data/columns.py``), and examples without a class are left out. The sample rate is
that of the audio feature, or a feature ``rate`` or ``sample_rate``.
"""

import functools
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int

from audiodd_jax.config import DataConfig
from audiodd_jax.config.user_paths import expanded
from audiodd_jax.data import audio, datasets
from audiodd_jax.data.columns import ALIASES, columns_of
from audiodd_jax.data.labels import class_order, labels_of
from audiodd_jax.data.names import development_is_training, part_in, plain
from audiodd_jax.data.recordings import (
    Decoded,
    Recordings,
    Source,
    fingerprint_tree,
    label_array,
)
from audiodd_jax.data.tables import Row, check_places, fold_numbers
from audiodd_jax.errors import UserError
from audiodd_jax.runtime import progress

# What is read besides the sound.
_KEYS = ("label", "labels", "split", "fold", "group")
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
        f"{fingerprint_tree(Path(builder.data_dir))}-2",  # labels as in tables
        lambda: _read(builder, name),
    )


@functools.cache
def _sources(folder: Path, splits: tuple[str, ...]) -> list[Any]:
    """The examples of each split; every process opens the records once."""
    builder = tfds.builder_from_directory(str(folder))
    return [builder.as_data_source(split) for split in splits]


def _load(
    folder: Path,
    splits: tuple[str, ...],
    rate: int,
    kept: Int[np.ndarray, " clips"],
    index: int,
) -> Decoded:
    """Decodes the example at an index among those that are ``kept``."""
    index = int(kept[index])
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
    columns = _columns(folder, features, name)
    described = builder.info.splits.items()
    splits = tuple(sorted(name for name, split in described if split.num_examples))
    # Audio features know their rate; others have none.
    usual_rate = getattr(features["audio"], "sample_rate", 0) or 0
    try:
        sources = _sources(folder, splits)
    except (NotImplementedError, ValueError) as error:
        raise UserError(
            f"{folder} is not stored as array_record: prepare it again with "
            "file_format='array_record'"
        ) from error
    names, rows, seconds, rates, kept, bad = [], [], [], [], [], {}
    total, index = sum(map(len, sources)), -1
    words = dict(zip(splits, splits, strict=True))
    places = {split: part_in(split) for split in splits}
    places = development_is_training(places, words)
    with progress.bar(total, desc="reading", unit="clip") as bar:
        for split, source in zip(splits, sources, strict=True):
            for i, example in enumerate(source):
                index += 1
                bar.update()
                cells = {
                    key: _cell(example[column], features[column])
                    for key, column in columns.items()
                }
                if not _is_labelled(cells):
                    continue
                try:
                    waveform, rate = _decode(example, folder, usual_rate)
                    length = waveform.size / rate
                except audio.BadAudioError as error:
                    bad[len(rows)], length, rate = error, 0, 0
                unit, place = f"{split} example", places[split]
                rows.append(Row(folder, i, cells, unit, place))
                names.append(f"{split}-{i:07d}")
                seconds.append(length)
                rates.append(rate)
                kept.append(index)
    left_out = ()
    if unlabelled := total - len(rows):
        left_out = (("example without a class", unlabelled, name),)
    labels, has_tags = labels_of(rows)
    check_places(rows)
    label = _inner(features[columns.get("label") or columns["labels"]])
    given = label.names if hasattr(label, "int2str") else ()
    class_names = class_order(itertools.chain(*labels), rows, given)
    folds = fold_numbers([row.fold for row in rows], folder)
    headers = audio.Headers(np.float32(seconds), np.int32(rates), bad)
    return Recordings(
        class_names=class_names,
        names=tuple(names),
        labels=label_array(labels, class_names, has_tags),
        splits=np.array([row.split for row in rows], str),
        folds=np.array([fold or 0 for fold in folds], np.int32),
        groups=np.array([row["group"] for row in rows], str),
        load=functools.partial(_load, folder, splits, usual_rate, np.array(kept)),
        read_headers=lambda: headers,
        left_out=left_out,
    )


def _columns(folder: Path, features: Any, name: str) -> dict[str, str]:
    """The features with labels, splits, folds and groups, by canonical name."""
    paths = {"path", *ALIASES["path"]}
    columns = columns_of(folder, ["audio", *(f for f in features if f not in paths)])
    has_label = not {"label", "labels"}.isdisjoint(columns)
    has = {"audio": "audio" in features, "label": has_label}
    if lacking := [key for key, is_there in has.items() if not is_there]:
        raise UserError(
            f"{name} has no feature {' and '.join(lacking)}, but {', '.join(features)}"
        )
    # Times tell where a recording was cut from.
    return {key: columns[key] for key in _KEYS if key in columns}


def _inner(feature: Any) -> Any:
    """The feature of the items of a list."""
    return getattr(feature, "feature", feature)


def _cell(value: Any, feature: Any) -> Any:
    """A value as in other tables; classes are named, and -1 is no class."""
    inner = _inner(feature)
    if isinstance(value, list | tuple | np.ndarray) and np.ndim(value):
        if len(np.shape(value)) > 1:
            raise UserError(f"its labels have {np.ndim(value)} axes instead of one")
        items = [_cell(item, inner) for item in value]
        return [item["name"] if isinstance(item, dict) else item for item in items]
    value = value.item() if hasattr(value, "item") else value
    if hasattr(inner, "int2str"):
        return {"name": inner.int2str(value)} if value >= 0 else None
    return value


def _is_labelled(cells: Mapping[str, Any]) -> bool:
    """Returns whether an example has a class, or is one of a data set with tags."""
    label = cells.get("label", cells.get("labels"))
    if isinstance(label, list):
        return None not in label
    return plain(label) not in ("", "-1")
