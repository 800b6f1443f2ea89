"""A coreset as a folder of Hugging Face ``datasets``: Parquet with an Audio feature.

Two configurations: ``default`` has a row per spectrogram, with the sound that was made
from it; ``views``, if there is a teacher, a row per view with its probabilities. The
features are in the Parquet files' schema and in the card's header, as on the Hub.
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
    """Writes the Parquet files; ``header`` is for the card beside them.

    Args:
      folder: exists.
      coreset: the coreset.
      waveforms: of its spectrograms.
    """
    arrays = coreset.unpack()
    labels = np.asarray(arrays.labels)
    rate = coreset.features.sample_rate
    names = audio_folder.files(labels, coreset.class_names)
    sounds = [
        {"bytes": audio_folder.encoded(waveform, rate), "path": name}
        for waveform, name in zip(waveforms, names, strict=True)
    ]
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        "audio": pa.array(sounds, audio),
        "label": _classes(labels, tag_threshold(labels.shape[1]), coreset),
        "label_values": _floats(labels),
        "spectrogram": _floats(np.asarray(arrays.images)[..., 0]),
    }
    _save(folder / "data" / "train-00000-of-00001.parquet", columns, coreset)
    if coreset.teacher_labels is not None:
        views = coreset.views()
        columns = {
            "label": _classes(views.labels, 0.5, coreset),
            "probabilities": _floats(views.labels),
            "spectrogram": _floats(views.images[..., 0]),
        }
        _save(folder / "views" / "train-00000-of-00001.parquet", columns, coreset)


def _classes(
    values: Float[np.ndarray, "k c"], threshold: float, coreset: Coreset
) -> pa.Array:
    """The class of each row, or the list of its tags: values above the threshold."""
    if not coreset.has_tags:
        return pa.array(values.argmax(1), pa.int64())
    rows = [np.flatnonzero(row > threshold).tolist() for row in values]
    return pa.array(rows, pa.list_(pa.int64()))


def _floats(values: Float[np.ndarray, "..."]) -> pa.Array:
    """Rows of float32 lists, or of lists of lists."""
    found = pa.array(np.asarray(values, np.float32).reshape(-1))
    for i in range(values.ndim - 1, 0, -1):
        count, size = int(np.prod(values.shape[:i])), values.shape[i]
        offsets = pa.array(np.arange(count + 1, dtype=np.int32) * size)
        found = pa.ListArray.from_arrays(offsets, found)
    return found


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
    own = {"info": {"features": {name: features[name] for name in columns}}}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(own)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def header(coreset: Coreset, *, is_parquet: bool) -> dict[str, Any]:
    """The YAML header of a dataset card, as on the Hub.

    Args:
      coreset: the coreset.
      is_parquet: describe the Parquet files too.
    """
    size = len(coreset.labels) * coreset.factor
    found = {
        "license": licence(coreset.metadata["licence"]),
        "task_categories": ["audio-classification"],
        "tags": ["audio", "dataset-distillation", "coreset"],
        "size_categories": ["n<1K" if size < 1000 else "1K<n<10K"],
        "pretty_name": f"Coreset of {coreset.metadata['dataset']}",
    }
    if not is_parquet:
        return found
    classes = {str(i): name for i, name in enumerate(coreset.class_names)}
    label = {"class_label": {"names": classes}}
    own = {
        "audio": {"dtype": {"audio": {"sampling_rate": coreset.features.sample_rate}}},
        "label": {"sequence" if coreset.has_tags else "dtype": label},
        **_HEADER,
    }
    configs = {"default": ("data", ("audio", "label", "label_values", "spectrogram"))}
    if coreset.teacher_labels is not None:
        configs["views"] = ("views", ("label", "probabilities", "spectrogram"))
    found["configs"] = [
        {
            "config_name": name,
            "data_files": [{"split": "train", "path": f"{place}/train-*.parquet"}],
            **({"default": True} if name == "default" else {}),
        }
        for name, (place, _) in configs.items()
    ]
    found["dataset_info"] = [
        {
            "config_name": name,
            "features": [{"name": column, **own[column]} for column in columns],
        }
        for name, (_, columns) in configs.items()
    ]
    return found


def licence(text: str) -> str:
    """The Hub's identifier of a licence; ``other`` if it has none."""
    found = (own for name, own in _LICENCES.items() if text.startswith(name))
    return next(found, "other")
