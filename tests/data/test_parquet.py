"""Parquet files of the Hub's audio datasets, as they are downloaded."""

import io
import json

import checks
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from coresets import labelled

from audiodd_jax.commands import export
from audiodd_jax.config import DataConfig
from audiodd_jax.errors import UserError

CLASSES = {"label": {"names": ["zebra", "ape"], "_type": "ClassLabel"}}


def sound(hz, kind="WAV"):
    time = np.arange(2000) / 8000
    file = io.BytesIO()
    soundfile.write(file, 0.5 * np.sin(2 * np.pi * hz * time), 8000, format=kind)
    return file.getvalue()


def write(path, labels, names=True, first=200, **columns):
    """A file as ``datasets`` writes it; each recording is 100 Hz higher."""
    kinds = ("WAV", "FLAC", "OGG")
    cells = [
        {"bytes": sound(first + 100 * i, kinds[i % 3]), "path": None}
        for i in range(len(labels))
    ]
    table = pa.table({"audio": cells, "label": labels, **columns})
    if names:
        info = {"info": {"features": CLASSES}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def read(place, cache):
    config = DataConfig("folder", data_dir=str(place))
    return checks.open_source(config, cache).read()


def test_splits_classes_and_speakers_are_read(tmp_path):
    hub = tmp_path / "hub"
    speakers = pa.array(["s1", "s1", "s2", "s2"])
    write(hub / "data/train-00000-of-00001.parquet", [0, 1, 0, 1], speaker_id=speakers)
    test = hub / "data/test-00000-of-00001.parquet"
    write(test, [1, 0, -1, None], first=1200)
    found = read(hub, tmp_path / "cache")
    assert found.class_names == ("zebra", "ape")
    by_name = dict(zip(found.names, found.labels, strict=True))
    assert len(by_name) == 6  # those without a class are left out
    assert found.splits.tolist() == ["test", "test", "train", "train", "train", "train"]
    assert found.labels.tolist() == [1, 0, 0, 1, 0, 1]
    assert found.groups[2:].tolist() == ["s1", "s1", "s2", "s2"]
    for i, hz in enumerate((1200, 1300, 200, 300, 400, 500)):
        wave, rate = found.load(i)
        peak = np.abs(np.fft.rfft(wave)).argmax() * rate / wave.size
        assert peak == pytest.approx(hz, abs=8)


def test_files_are_unpacked_once_and_again_if_they_change(tmp_path):
    file, cache = tmp_path / "one.parquet", tmp_path / "cache"
    write(file, ["a", "b"], names=False)
    assert read(file, cache).class_names == ("a", "b")
    (first,) = (cache / "parquet").iterdir()
    stamp = (first / "rows.json").stat().st_mtime_ns
    assert read(file, cache).class_names == ("a", "b")
    assert (first / "rows.json").stat().st_mtime_ns == stamp
    write(file, ["a", "b", "c"], names=False)
    assert read(file, cache).class_names == ("a", "b", "c")
    assert len(list((cache / "parquet").iterdir())) == 2


def test_exports_can_be_read_again(tmp_path):
    labels = np.float32([[0.5, -0.5], [-0.5, 0.5]] * 3)
    coreset = labelled(labels=labels)  # and views, which have no sound
    out = export.export(coreset, "datasets", tmp_path / "out")
    found = read(out, tmp_path / "cache")
    assert found.class_names == ("a", "b")
    assert found.labels.tolist() == [0, 1] * 3
    np.testing.assert_allclose(found.load(3)[0], coreset.sounds()[3], atol=1e-4)


def test_unusable_files_are_named(tmp_path):
    cache = tmp_path / "cache"
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(UserError, match=r"bad\.parquet cannot be used"):
        read(bad, cache)
    pq.write_table(pa.table({"text": ["x"]}), bad)
    with pytest.raises(UserError, match="needs the columns audio and label, and has"):
        read(bad, cache)
    cells = pa.array([{"array": [0.5], "sampling_rate": 8000}])
    pq.write_table(pa.table({"audio": cells, "label": [1]}), bad)
    with pytest.raises(UserError, match="audio of row 0 holds no bytes of a sound"):
        read(bad, cache)
    # Nothing half-written is left in the cache.
    assert not list((cache / "parquet").glob("*"))
