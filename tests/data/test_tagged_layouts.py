"""Miniatures of FSD50K and of a task of HEAR, in their published layouts."""

import json

import checks
import numpy as np
import pytest
import soundfile

from audiodd_jax.config import DataConfig
from audiodd_jax.errors import UserError


def tone(path, pitch=300.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.4 * np.sin(2 * np.pi * pitch * np.arange(800) / 8000)
    soundfile.write(path, wave.astype(np.float32), 8000)


def read(place):
    config = DataConfig(name="folder", data_dir=str(place))
    source = checks.open_source(config, place.parent / "cache")
    return source, source.read()


@pytest.fixture
def fsd50k(tmp_path):
    place = tmp_path / "FSD50K"
    truth = place / "FSD50K.ground_truth"
    truth.mkdir(parents=True)
    (truth / "dev.csv").write_text(
        "fname,labels,mids,split\n"
        '64760,"Electric_guitar,Guitar",/m/1,train\n'
        "16399,Guitar,/m/2,train\n"
        '100,"Bark,Dog",/m/3,val\n'
    )
    (truth / "eval.csv").write_text('fname,labels,mids\n37199,"Dog,Guitar",/m/4\n')
    for i, name in enumerate(("dev_audio/64760", "dev_audio/16399", "dev_audio/100")):
        tone(place / f"FSD50K.{name}.wav", 300 + 50 * i)
    tone(place / "FSD50K.eval_audio" / "37199.wav", 900)
    tone(place / "FSD50K.eval_audio" / "1.wav", 950)
    return place


@pytest.fixture
def hear(tmp_path):
    place = tmp_path / "task"
    place.mkdir()
    (place / "labelvocabulary.csv").write_text("idx,label\n0,dog\n1,rain\n2,siren\n")
    parts = {
        "train": {"a.wav": ["dog", "rain"], "b.wav": ["siren"]},
        "valid": {"c.wav": []},
        "test": {"d.wav": ["dog"]},
    }
    for i, (part, labels) in enumerate(parts.items()):
        (place / f"{part}.json").write_text(json.dumps(labels))
        for j, name in enumerate(labels):
            tone(place / "48000" / part / name, 300 + 100 * i + 30 * j)
            tone(place / "16000" / part / name, 300 + 100 * i + 30 * j)
    return place


def test_fsd50k(fsd50k):
    source, found = read(fsd50k)
    assert source.has_tags
    assert found.class_names == ("Bark", "Dog", "Electric_guitar", "Guitar")
    assert found.splits.tolist() == ["train", "train", "validation", "test"]
    assert found.labels.tolist()[0] == [0, 0, 1, 1]
    assert found.labels.tolist()[3] == [0, 1, 0, 1]
    assert found.names[3] == "FSD50K.eval_audio/37199.wav"
    assert found.load(3)[1] == 8000
    assert found.left_out == (("recording that no table lists", 1, "1.wav"),)


def test_hear_with_tags(hear):
    source, found = read(hear)
    assert source.has_tags
    assert found.class_names == ("dog", "rain", "siren")
    assert found.labels.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]]
    names = ("test/d", "train/a", "train/b", "valid/c")
    assert found.names == tuple(f"48000/{name}.wav" for name in names)


def test_hear_with_one_label_per_clip_and_folds_has_classes(hear):
    for part in ("train", "valid", "test"):
        (hear / f"{part}.json").unlink()
    for fold, label in enumerate(("dog", "rain")):
        tone(hear / "48000" / f"fold0{fold}" / "x.wav", 300 + 100 * fold)
        (hear / f"fold0{fold}.json").write_text(json.dumps({"x.wav": [label]}))
    source, found = read(hear)
    assert not source.has_tags
    assert found.labels.tolist() == [0, 1]
    assert found.folds.tolist() == [1, 2]
    (hear / "task_metadata.json").write_text('{"prediction_type": "multilabel"}')
    assert read(hear)[0].has_tags


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("train.json", '{"a.wav": ["cat"]}', "'cat', which labelvocabulary.csv lacks"),
        ("train.json", '{"a.wav": "dog"}', "is not a table of file names with lists"),
        ("train.json", "[1", "it is not JSON"),
        ("train.json", '{"a.wav": [{"label": "dog"}]}', "has labels of events in time"),
        ("labelvocabulary.csv", "idx,name\n0,dog\n", "lacks the column label"),
    ],
)
def test_damaged_tables_of_hear(hear, name, text, words):
    (hear / name).write_text(text)
    with pytest.raises(UserError, match=words):
        read(hear)


def test_incomplete_copies_are_named(hear, fsd50k):
    (fsd50k / "FSD50K.ground_truth" / "eval.csv").unlink()
    with pytest.raises(UserError, match="looks like FSD50K, but lacks"):
        read(fsd50k)
    (hear / "train.json").unlink()
    with pytest.raises(UserError, match=r"train\.json is missing"):
        read(hear)
    for part in ("valid", "test"):
        (hear / f"{part}.json").unlink()
    with pytest.raises(UserError, match=r"like a task of HEAR, but no train\.json"):
        read(hear)
