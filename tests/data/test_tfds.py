"""Datasets that TFDS has prepared, read without TensorFlow."""

import contextlib
import importlib.util
import io
import json
import pickle

import checks
import numpy as np
import pytest
import tensorflow_datasets as tfds

from audiodd_jax.commands import main
from audiodd_jax.config import DataConfig
from audiodd_jax.errors import UserError

PITCH = {"low": 300.0, "high": 1500.0}


def clip(label, seconds, channels):
    time = np.arange(int(8000 * seconds)) / 8000
    wave = 0.5 * np.sin(2 * np.pi * PITCH[label] * time)
    if channels == 2:
        wave = np.stack([2 * wave, 0 * wave], 1)
    return np.round(32768 * wave).clip(-32768, 32767).astype(np.int16)


CLASSES = tfds.features.ClassLabel(names=["low", "high"])


def prepare(
    root,
    audio=True,
    channels=1,
    rate=True,
    name="my_sounds",
    features=None,
    rows=None,
):
    """A dataset as TFDS's builders write it, with their sequential writer.

    ``rows`` of ``features`` replace the labels and speakers of the split train.
    """
    shape = (None,) if channels == 1 else (None, channels)
    features = features or {"label": CLASSES, "speaker_id": tfds.features.Text()}
    features = dict(features)
    if audio:
        features["audio"] = tfds.features.Tensor(shape=shape, dtype=np.int16)
    if rate:
        features["rate"] = np.int32
    with tfds.core.registered.skip_registration():

        class MySounds(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.2.0")

            def _info(self):
                features_dict = tfds.features.FeaturesDict(features)
                return tfds.core.DatasetInfo(builder=self, features=features_dict)

            def _split_generators(self, dl_manager):
                return {}

            def _generate_examples(self):
                return iter(())

    MySounds.name = name
    builder = MySounds(data_dir=str(root), file_format="array_record")
    (root / name / "1.2.0").mkdir(parents=True)
    with contextlib.redirect_stdout(io.StringIO()):
        writer = tfds.core.SequentialWriter(
            builder.info, 100, file_format="array_record"
        )
    writer.initialize_splits(["train", "test"])
    if rows is not None:
        sound = clip("low", 0.2, channels)
        rows = [{"audio": sound, "rate": 8000, **row} for row in rows]
        writer.add_examples({"train": rows})
    for split, count in (("train", 16), ("test", 6)) if rows is None else ():
        rows = []
        for i in range(count):
            label = ("low", "high")[i % 2]
            row = {"label": label, "speaker_id": f"s{i // 2}"}
            if audio:
                row["audio"] = clip(label, 0.2 + 0.01 * i, channels)
            if rate:
                row["rate"] = 8000
            rows.append(row)
        writer.add_examples({split: rows})
    writer.close_all()
    return root


def read(root, name="my_sounds"):
    config = DataConfig(f"tfds:{name}", data_dir=str(root))
    return checks.open_source(config, root / "cache")


@pytest.mark.parametrize("channels", [1, 2])
def test_splits_classes_rates_and_speakers_are_read(channels, tmp_path):
    source = read(prepare(tmp_path, channels=channels))
    assert source.version == "1.2.0"
    found = source.read()
    assert found.class_names == ("low", "high")
    assert found.splits.tolist() == ["test"] * 6 + ["train"] * 16
    assert found.labels.tolist() == [0, 1] * 11
    assert found.groups[6:10].tolist() == ["s0", "s0", "s1", "s1"]
    headers = found.read_headers()
    assert set(headers.rates) == {8000}
    np.testing.assert_allclose(headers.seconds[6:8], [0.2, 0.21], atol=1e-3)
    load = pickle.loads(pickle.dumps(found.load))  # as other processes get it
    for index in (0, 21):
        wave, rate = load(index)
        assert (wave.ndim, rate) == (1, 8000)
        assert np.abs(wave).max() == pytest.approx(0.5, abs=0.01)
        hz = np.abs(np.fft.rfft(wave)).argmax() * rate / wave.size
        assert hz == pytest.approx(1500 if found.labels[index] else 300, abs=6)


def test_folds_groups_and_splits_are_read_from_features(tmp_path):
    features = {
        "category": tfds.features.Text(),
        "fold": np.int32,
        "speaker": np.int64,
        "split": tfds.features.ClassLabel(names=["train", "test"]),
    }
    rows = [
        {"category": "ab"[i % 2], "fold": i // 2, "speaker": i % 3, "split": i // 3}
        for i in range(6)
    ]
    found = read(prepare(tmp_path, features=features, rows=rows)).read()
    assert found.class_names == ("a", "b")
    assert found.folds.tolist() == [1, 1, 2, 2, 3, 3]
    assert found.groups.tolist() == ["0", "1", "2"] * 2
    assert found.splits.tolist() == ["train"] * 3 + ["test"] * 3


def test_clips_without_a_class_are_left_out(tmp_path):
    labels = [1, -1, 0, 1]
    rows = [{"label": label} for label in labels]
    found = read(prepare(tmp_path, features={"label": CLASSES}, rows=rows)).read()
    assert found.class_names == ("low", "high")
    assert found.labels.tolist() == [1, 0, 1]
    assert found.left_out == (("example without a class", 1, "my_sounds"),)
    assert found.names == ("train-0000000", "train-0000002", "train-0000003")
    assert found.load(2)[0].size == 1600


@pytest.mark.parametrize(
    ("feature", "labels", "classes"),
    [
        (tfds.features.Sequence(CLASSES), [[1, 0], [], [0]], ("low", "high")),
        (tfds.features.Sequence(tfds.features.Text()), [["b", "a"], [], ["a"]], "ab"),
        (tfds.features.Text(), ["b;a", ";", "a"], "ab"),
        (np.int64, [10, 2, 10], ("2", "10")),
    ],
)
def test_labels_of_any_type(feature, labels, classes, tmp_path):
    rows = [{"label": label} for label in labels]
    found = read(prepare(tmp_path, features={"label": feature}, rows=rows)).read()
    assert found.class_names == tuple(classes)
    tags = [[1, 1], [0, 0], [1, 0]]
    assert found.labels.tolist() == ([1, 0, 1] if feature is np.int64 else tags)


def test_labels_as_zeros_and_ones_are_refused(tmp_path):
    feature = tfds.features.Tensor(shape=(3,), dtype=np.int64)
    rows = [{"label": np.array([1, 0, 1])}, {"label": np.array([0, 1, 0])}]
    root = prepare(tmp_path, features={"label": feature}, rows=rows)
    with pytest.raises(UserError, match=r"train example 0: .* one number for each"):
        read(root).read()


def test_the_command_prepares_it(tmp_path, capsys):
    root = prepare(tmp_path)
    small = ["--config.features.n_mels=16", "--config.features.frames=16"]
    command = ["prepare", "--dataset=tfds:my_sounds", f"--data_dir={root}", *small]
    main.main(command)
    text = capsys.readouterr().out
    assert "my_sounds of TensorFlow Datasets" in text
    assert "22" in text


def test_unreadable_datasets_are_named(tmp_path):
    with pytest.raises(UserError, match="TFDS has not prepared nothing in"):
        read(tmp_path, "nothing")
    prepare(tmp_path, audio=False, name="texts")
    with pytest.raises(UserError, match="texts has no feature audio, but"):
        read(tmp_path, "texts").read()
    prepare(tmp_path, rate=False, name="no_rate")
    bad = read(tmp_path, "no_rate").read().read_headers().bad
    assert "has no sample rate" in str(bad[0])


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed"
)
def test_features_that_need_tensorflow_are_refused(tmp_path):
    file = prepare(tmp_path) / "my_sounds" / "1.2.0" / "features.json"
    content = json.loads(file.read_text())
    content["featuresDict"]["features"]["audio"] = {
        "pythonClassName": "tensorflow_datasets.core.features.audio_feature.Audio",
        "audio": {
            "shape": {"dimensions": ["-1"]},
            "dtype": "int64",
            "fileFormat": "",
            "sampleRate": "8000",
            "encoding": "none",
        },
    }
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="needs TensorFlow, which is not installed"):
        read(tmp_path)
