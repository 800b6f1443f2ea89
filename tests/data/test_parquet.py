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


def test_times_next_to_recordings_do_not_cut_them(tmp_path):
    """As in UrbanSound8K on the Hub: they tell where a clip was cut from."""
    times = {"start": [70.0, 0.1], "end": [70.25, 0.2]}
    write(tmp_path / "one.parquet", ["a", "b"], names=False, **times)
    found = read(tmp_path, tmp_path / "cache")
    assert [found.load(i)[0].size for i in range(2)] == [2000, 2000]


def test_columns_of_any_case_and_type(tmp_path, caplog):
    """Speaker 0, folds 1.0, null: as in a CSV."""
    write(
        tmp_path / "one.parquet",
        ["b", "a", "b", "a"],
        names=False,
        Fold=[1.0, 2.0, 1.0, 2.0],
        Speaker_ID=[0, 0, 7, None],
        filename=["x.wav", "y.wav", "z.wav", "w.wav"],
    )
    found = read(tmp_path, tmp_path / "cache")
    assert found.folds.tolist() == [1, 2, 1, 2]
    assert found.groups.tolist() == ["0", "0", "7", ""]
    assert found.names[1] == "one.parquet/row 1"


def test_lists_of_numbered_classes_and_exact_names(tmp_path):
    info = {"info": {"features": {"tags": [{"names": ["b, c", "a;"]}]}}}
    cells = [{"bytes": sound(200 + 50 * i), "path": f"{i}.wav"} for i in range(3)]
    table = pa.table({"audio": cells, "tags": [[1, 0], [], [0]]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, tmp_path / "one.parquet")
    found = read(tmp_path, tmp_path / "cache")
    assert found.class_names == ("b, c", "a;")
    assert found.labels.tolist() == [[1, 1], [0, 0], [1, 0]]
    assert found.names == tuple(f"one.parquet/{i}.wav" for i in range(3))
    write(tmp_path / "d" / "x.parquet", [0, 2])
    with pytest.raises(UserError, match="label of row 1 is 2, but the schema has 2"):
        read(tmp_path / "d", tmp_path / "cache")


@pytest.mark.parametrize("labels", [[[["a"]], [["b"]]], [{"name": "a"}] * 2])
def test_labels_within_lists_are_refused(labels, tmp_path):
    write(tmp_path / "one.parquet", labels, names=False)
    with pytest.raises(UserError, match="the label of row 0 is neither a name"):
        read(tmp_path, tmp_path / "cache")


def test_dictionaries_and_other_names_of_columns(tmp_path):
    kinds = pa.array(["a", "b", "a", "b"]).dictionary_encode()
    parts = pa.array(["train", "train", "test", "test"]).dictionary_encode()
    cells = [{"bytes": sound(200 + 50 * i), "path": f"{i}.wav"} for i in range(4)]
    columns = {
        "audio": cells,
        "emotion": kinds,
        "set": parts,
        "client_id": [0, 0, 1, 1],
    }
    (tmp_path / "a/b/c").mkdir(parents=True)
    pq.write_table(pa.table(columns), tmp_path / "a/b/c/one.parquet")
    found = read(tmp_path, tmp_path / "cache")
    assert found.class_names == ("a", "b")
    assert found.splits.tolist() == ["train", "train", "test", "test"]
    assert found.groups.tolist() == ["0", "0", "1", "1"]


def test_numbers_of_classes_are_in_order(tmp_path):
    write(tmp_path / "one.parquet", [10, 2, 1], names=False)
    assert read(tmp_path, tmp_path / "cache").class_names == ("1", "2", "10")


def test_splits_in_names_of_files_and_folders(tmp_path):
    for i, part in enumerate(("partial-train", "partial-test")):
        write(
            tmp_path / "d/default" / part / "0000.parquet", [0, 1], first=200 + 900 * i
        )
    found = read(tmp_path / "d", tmp_path / "cache")
    assert found.splits.tolist() == ["test", "test", "train", "train"]
    write(tmp_path / "e" / "esc_train.parquet", ["x", "y"], names=False)
    write(tmp_path / "e" / "esc_val.parquet", ["x", "y"], names=False, first=900)
    found = read(tmp_path / "e", tmp_path / "cache")
    assert found.splits.tolist() == ["train", "train", "validation", "validation"]


@pytest.mark.parametrize("part", ["train/", ""])
def test_several_configurations_are_refused(tmp_path, part):
    for version in ("v1", "v2"):
        write(tmp_path / "d" / version / f"{part}0000.parquet", [0, 1])
    with pytest.raises(UserError, match=r"v1 and v2: choose one, such as --data_dir"):
        read(tmp_path / "d", tmp_path / "cache")
    assert len(read(tmp_path / "d" / "v2", tmp_path / "cache")) == 2


def test_a_stray_table_is_left_out(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "x.wav").write_bytes(sound(300))
    pq.write_table(pa.table({"file": ["a/x.wav"]}), tmp_path / "d" / "other.parquet")
    found = read(tmp_path / "d", tmp_path / "cache")
    assert found.class_names == ("a", "b")
    reason = "Parquet table without labelled recordings"
    assert (reason, 1, "other.parquet") in found.left_out
    write(tmp_path / "d" / "full.parquet", [0, 1])
    with pytest.raises(UserError, match=r"full\.parquet and in class folders"):
        read(tmp_path / "d", tmp_path / "cache")


def test_recordings_as_paths_and_none(tmp_path):
    (tmp_path / "x.wav").write_bytes(sound(300))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [
        {"bytes": None, "path": str(tmp_path / "x.wav")},
        {"bytes": None, "path": "x.wav"},
        {"bytes": sound(700), "path": "own.wav"},
        None,
        {"bytes": sound(800), "path": None},
    ]
    labels = ["a", "a", "b", "b", "b"]
    table = pa.table({"audio": pa.array(cells, kind), "label": labels})
    pq.write_table(table, tmp_path / "one.parquet")
    found = read(tmp_path / "one.parquet", tmp_path / "cache")
    assert len(found) == 4  # x.wav once
    bad = found.read_headers().bad
    assert str(bad[2]).endswith("one.parquet, row 3 does not exist")
    assert found.load(0)[0].size == found.load(1)[0].size == 2000


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
