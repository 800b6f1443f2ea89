"""A coreset as a folder for Hugging Face ``datasets``: Parquet with an Audio feature.

The configuration ``default`` has a row per spectrogram, with its reconstructed sound;
coresets with a teacher also have ``views``, with a row per view and its probabilities.
As on the Hub, both the Parquet schema and the card's header list the features.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from audiodd_jax.coreset import audio_folder
from audiodd_jax.coreset.file import Coreset
from audiodd_jax.features.labels import tag_threshold

# Features in the schema, and in the card's header.
_VECTOR = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"}
_IMAGE = {"feature": _VECTOR, "_type": "Sequence"}
_HEADER = {
    "probabilities": {"sequence": "float32"},
    "label_values": {"sequence": "float32"},
    "spectrogram": {"sequence": {"sequence": "float32"}},
}
_LICENCES = {
    "Apache-2.0": "apache-2.0",
    "CC BY 3.0": "cc-by-3.0",
    "CC BY 4.0": "cc-by-4.0",
    "CC BY-SA 4.0": "cc-by-sa-4.0",
    "CC BY-NC 3.0": "cc-by-nc-3.0",
}


def write(
    folder: Path, coreset: Coreset, waveforms: Float[np.ndarray, "k samples"]
) -> None:
    """Writes Parquet files with a coreset and its sounds into an existing folder."""
    arrays = coreset.unpack()
    labels = np.asarray(arrays.labels)
    rate = coreset.features.sample_rate
    classes = coreset.unpacked_classes
    names = audio_folder.files(classes, coreset.class_names)
    label = pa.array(classes, pa.int64())
    if coreset.has_tags:
        label = _likeliest(labels, tag_threshold(labels.shape[1]), coreset)
    sounds = [
        {"bytes": audio_folder.encoded(waveform, rate), "path": name}
        for waveform, name in zip(waveforms, names, strict=True)
    ]
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        "audio": pa.array(sounds, audio),
        "label": label,
        "label_values": _floats(labels),
        "spectrogram": _floats(np.asarray(arrays.images)[..., 0]),
    }
    _save(folder / "data" / "train-00000-of-00001.parquet", columns, coreset)
    if coreset.teacher_labels is not None:
        views = coreset.views()
        columns = {
            "label": _likeliest(views.labels, 0.5, coreset),
            "probabilities": _floats(views.labels),
            "spectrogram": _floats(views.images[..., 0]),
        }
        _save(folder / "views" / "train-00000-of-00001.parquet", columns, coreset)


def _likeliest(
    values: Float[np.ndarray, "k c"], threshold: float, coreset: Coreset
) -> pa.Array:
    """Returns the likeliest class of each row, or its tags above the threshold."""
    if not coreset.has_tags:
        return pa.array(values.argmax(1), pa.int64())
    rows = [np.flatnonzero(row > threshold).tolist() for row in values]
    return pa.array(rows, pa.list_(pa.int64()))


def _floats(values: Float[np.ndarray, "..."]) -> pa.Array:
    """Returns rows of float32 lists, or of lists of lists."""
    nested = pa.array(np.asarray(values, np.float32).reshape(-1))
    for i in range(values.ndim - 1, 0, -1):
        count, size = int(np.prod(values.shape[:i])), values.shape[i]
        offsets = pa.array(np.arange(count + 1, dtype=np.int32) * size)
        nested = pa.ListArray.from_arrays(offsets, nested)
    return nested


def _save(path: Path, columns: dict[str, pa.Array], coreset: Coreset) -> None:
    label = {"names": list(coreset.class_names), "_type": "ClassLabel"}
    if coreset.has_tags:
        label = {"feature": label, "_type": "Sequence"}
    features = {
        "audio": {"sampling_rate": coreset.features.sample_rate, "_type": "Audio"},
        "label": label,
        "label_values": _VECTOR,
        "probabilities": _VECTOR,
        "spectrogram": _IMAGE,
    }
    info = {"info": {"features": {name: features[name] for name in columns}}}
    metadata = {"huggingface": json.dumps(info)}
    table = pa.table(columns).replace_schema_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def header(coreset: Coreset, *, is_parquet: bool) -> dict[str, Any]:
    """Returns the YAML header of a dataset card, with the Parquet files if any."""
    size = len(coreset.labels) * coreset.factor
    values = {
        "license": licence(coreset.metadata["licence"]),
        "task_categories": ["audio-classification"],
        "tags": ["audio", "dataset-distillation", "coreset"],
        "size_categories": ["n<1K" if size < 1000 else "1K<n<10K"],
        "pretty_name": f"Coreset of {coreset.metadata['dataset']}",
    }
    if not is_parquet:
        return values
    classes = {str(i): name for i, name in enumerate(coreset.class_names)}
    label = {"class_label": {"names": classes}}
    features = {
        "audio": {"dtype": {"audio": {"sampling_rate": coreset.features.sample_rate}}},
        "label": {"sequence" if coreset.has_tags else "dtype": label},
        **_HEADER,
    }
    configs = {"default": ("data", ("audio", "label", "label_values", "spectrogram"))}
    if coreset.teacher_labels is not None:
        configs["views"] = ("views", ("label", "probabilities", "spectrogram"))
    values["configs"] = [
        {
            "config_name": name,
            "data_files": [{"split": "train", "path": f"{folder}/train-*.parquet"}],
            **({"default": True} if name == "default" else {}),
        }
        for name, (folder, _) in configs.items()
    ]
    values["dataset_info"] = [
        {
            "config_name": name,
            "features": [{"name": column, **features[column]} for column in columns],
        }
        for name, (_, columns) in configs.items()
    ]
    return values


def licence(text: str) -> str:
    """Returns the Hub's identifier of a licence, or ``other``."""
    matches = (hub for name, hub in _LICENCES.items() if text.startswith(name))
    return next(matches, "other")
