"""Folders that the Hugging Face ``datasets`` library loads, with the same values."""

import csv
import gc
import inspect
import io
import json
from pathlib import Path

import checks
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from coresets import labelled

import audiodd_jax
from audiodd_jax.commands import export as job
from audiodd_jax.config import DataConfig
from audiodd_jax.coreset import audio_folder
from audiodd_jax.errors import UserError
from audiodd_jax.report.exports import hub

LABELS = np.float32([[0.5, -0.5], [-0.3, 0.3]] * 3)


@pytest.fixture(scope="module")
def coreset():
    return labelled(labels=LABELS)


@pytest.fixture(scope="module")
def parquet(coreset, tmp_path_factory):
    return job.export(coreset, "datasets", tmp_path_factory.mktemp("hub") / "out")


def decoded(cell):
    content = cell["bytes"] or Path(cell["path"]).read_bytes()
    return soundfile.read(io.BytesIO(content), dtype="float32")


def test_parquet_loads_with_the_same_values(coreset, parquet, load):
    data = load(parquet)
    assert data.features["label"].names == ["a", "b"]
    assert data.features["audio"].sampling_rate == 8000
    found = data.with_format("numpy", ["spectrogram", "label_values", "label"])
    np.testing.assert_array_equal(found["spectrogram"], coreset.images[..., 0])
    np.testing.assert_array_equal(found["label_values"], LABELS)
    np.testing.assert_array_equal(found["label"], [0, 1] * 3)
    sounds = coreset.sounds()
    for row, waveform in zip(data, sounds, strict=True):
        samples, rate = decoded(row["audio"])
        assert rate == 8000
        np.testing.assert_allclose(samples, waveform, atol=1e-4)
    views, ours = load(parquet, "views").with_format("numpy"), coreset.views()
    np.testing.assert_array_equal(views["spectrogram"], ours.images[..., 0])
    np.testing.assert_array_equal(views["probabilities"], ours.labels)


def test_a_class_is_what_a_spectrogram_was_made_for(tmp_path, load):
    """Not what its learnt label says most."""
    made = np.array([0, 0, 0, 0, 1, 1])
    coreset = labelled(labels=LABELS, made_for=made)
    hub.write(tmp_path / "hub", coreset, np.zeros((6, 4000), np.float32))
    data = load(tmp_path / "hub" / "data")
    assert data.remove_columns("audio")["label"] == made.tolist()
    audio_folder.write(np.zeros((6, 4000), np.float32), coreset, tmp_path / "wav")
    with (tmp_path / "wav" / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == list("aaaabb")
    assert [row["file_name"][:2] for row in rows] == ["a/"] * 4 + ["b/"] * 2
    # The values of the label stand next to it.
    assert [float(row["label_a"]) for row in rows] == pytest.approx([1, 0.2] * 3)


def test_the_card_begins_with_the_header_of_the_hub(parquet):
    front, text = (parquet / "README.md").read_text().split("---\n")[1:]
    header = dict(line.split(": ", 1) for line in front.splitlines())
    assert json.loads(header["license"]) == "apache-2.0"
    names = [own["config_name"] for own in json.loads(header["configs"])]
    assert names == ["default", "views"]
    assert "load_dataset" in text
    schema = pq.read_schema(parquet / "data" / "train-00000-of-00001.parquet")
    info = json.loads(schema.metadata[b"huggingface"])["info"]
    assert info["features"]["audio"] == {"sampling_rate": 8000, "_type": "Audio"}


# The library imports torch to encode sounds, and leaves metadata.csv open.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_audio_folder_loads_there_and_here(coreset, load, tmp_path):
    pytest.importorskip("torch", reason="no PyTorch")
    out = job.export(coreset, "audiofolder", tmp_path / "folder")
    data = load("audiofolder", data_dir=out)
    assert data["label"] == ["a", "b"] * 3
    np.testing.assert_allclose(data["label_b"], LABELS[:, 1] + 0.5, atol=1e-6)
    for row, waveform in zip(data, coreset.sounds(), strict=True):
        np.testing.assert_allclose(decoded(row["audio"])[0], waveform, atol=1e-4)
    source = checks.open_source(DataConfig("folder", data_dir=str(out)), tmp_path)
    recordings = source.read()
    assert recordings.class_names == ("a", "b")
    assert len(recordings) == 6
    gc.collect()  # the library's open file, whose warning is ignored here only


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("CC BY-NC 3.0, Karol J. Piczak", "cc-by-nc-3.0"),
        ("CC BY 3.0, Karol J. Piczak", "cc-by-3.0"),
        ("that of the recordings", "other"),
    ],
)
def test_licences_have_the_names_of_the_hub(text, found):
    assert hub.licence(text) == found


def test_an_export_overwrites_nothing(coreset, tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match="exists already; choose a new folder"):
        job.export(coreset, "numpy", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_python_exports_again_and_again(coreset, tmp_path):
    """No module takes the function's name once it has been used."""
    for name in ("one", "two"):
        out = audiodd_jax.export(coreset, "numpy", tmp_path / name)
        assert (out / "train.npz").exists()
    assert all(
        not inspect.ismodule(getattr(audiodd_jax, n)) for n in audiodd_jax.__all__
    )
