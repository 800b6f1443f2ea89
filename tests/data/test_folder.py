import shutil

import numpy as np
import pytest

from audiodd_jax.config import DataConfig
from audiodd_jax.data import datasets
from audiodd_jax.errors import UserError


def read(place):
    config = DataConfig(name="folder", data_dir=str(place))
    return datasets.open_source(config).read()


def write_table(folder, text, name="table.csv"):
    (folder / name).write_text(text)
    return folder / name


def test_a_tree_of_classes(sound_folder):
    found = read(sound_folder)
    assert found.class_names == ("high", "low")
    assert len(found) == 24
    assert (np.bincount(found.labels) == 12).all()
    waveform, rate = found.load(0)
    assert rate == 8000
    seconds, rates, bad = found.read_headers()
    assert seconds[0] == pytest.approx(waveform.size / rate)
    assert (rates == 8000).all()
    assert not bad


def test_train_and_test_folders(sound_folder, tmp_path):
    for split, take in (("train", range(8)), ("test", range(8, 12))):
        for label in ("low", "high"):
            target = tmp_path / "split" / split / label
            target.mkdir(parents=True)
            for i in take:
                shutil.copy(sound_folder / label / f"{i:02d}.wav", target)
    found = read(tmp_path / "split")
    assert found.class_names == ("high", "low")
    assert {s: int((found.splits == s).sum()) for s in ("train", "test")} == {
        "train": 16,
        "test": 8,
    }


def test_a_table(sound_folder):
    rows = [
        f"{label}/{i:02d}.wav,{label},{1 + i % 3},rec{i // 2}"
        for label in ("low", "high")
        for i in range(6)
    ]
    table = write_table(
        sound_folder, "path,label,fold,group\n" + "\n".join(rows) + "\n"
    )
    found = read(table)
    assert len(found) == 12
    assert set(found.folds) == {1, 2, 3}
    assert found.groups[0] == found.groups[1] == "rec0"
    assert found.class_names[found.labels[0]] == "low"
    assert found.load(0)[1] == 8000


def test_a_table_with_splits_in_common_spellings(sound_folder):
    text = "path,label,split\nlow/00.wav,low,Train\nhigh/00.wav,high,val\n"
    found = read(write_table(sound_folder, text + "high/01.wav,high,testing\n"))
    assert list(found.splits) == ["train", "validation", "test"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("voice,label\na.wav,x\n", "lacks the column path; it has voice, label"),
        ("", "lacks the column path and label; it has none"),
        ("path,label\n,x\n", "line 2 lacks its path"),
        ("path,label,split\na.wav,x,trian\n", "line 2: the split is train"),
        ("path,label,fold\na.wav,x,one\n", "line 2: the fold is a number"),
        ("path,label,fold\na.wav,x,1\nb.wav,y,\n", "1 row lacks its fold"),
        ("path,label\na.wav,x\nb.wav,x\n", "holds 1 class of"),
    ],
)
def test_bad_tables_are_named(sound_folder, text, words):
    with pytest.raises(UserError, match=words):
        read(write_table(sound_folder, text))


def test_a_missing_file_of_a_table_is_bad_audio(sound_folder):
    text = "path,label\nlow/00.wav,low\nhigh/99.wav,high\n"
    found = read(write_table(sound_folder, text))
    with pytest.raises(UserError, match=r"high/99\.wav does not exist"):
        found.load(1)


def test_folders_without_recordings(tmp_path):
    with pytest.raises(UserError, match="is neither a folder nor a CSV"):
        read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds 0 classes"):
        read(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="holds no sound file"):
        read(tmp_path)
    with pytest.raises(UserError, match="needs --data_dir"):
        datasets.open_source(DataConfig(name="folder"))


def test_a_table_that_is_not_text(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"\x80\xff\x00\xfe" * 10)
    with pytest.raises(UserError, match="is not a CSV in UTF-8"):
        read(tmp_path / "table.csv")
