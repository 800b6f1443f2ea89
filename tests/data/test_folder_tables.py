"""Tables of splits in a folder, and files that are found by their names."""

import collections
import json
import logging

import checks
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from audiodd_jax.config import DataConfig
from audiodd_jax.errors import UserError


def sounds(folder, count, first=0):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        # Others in every file: clips of the same bytes share a group.
        rng = np.random.default_rng(list(f"{folder}/{i}".encode()))
        soundfile.write(folder / f"{i}.wav", 0.1 * rng.standard_normal(400), 8000)


def table(path, header, rows, separator=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [separator.join(map(str, row)) for row in [header, *rows]]
    path.write_text("\n".join(lines) + "\n")
    return path


def rows(first, last, prefix="", suffix=".wav"):
    return [(f"{prefix}{i}{suffix}", "ab"[i % 2]) for i in range(first, last)]


def read(place, cache):
    config = DataConfig("folder", data_dir=str(place))
    return checks.open_source(config, cache).read()


def splits(found):
    return dict(collections.Counter(found.splits.tolist()))


@pytest.mark.parametrize(
    ("names", "suffix", "separator"),
    [
        (("train", "validation", "test"), ".csv", ","),
        (("train", "valid", "eval"), ".tsv", "\t"),
        (("Train", "dev", "my_test"), ".csv", ";"),
    ],
)
def test_a_table_for_each_split(names, suffix, separator, tmp_path):
    sounds(tmp_path / "clips", 12)
    for name, first, last in zip(names, (0, 8, 10), (8, 10, 12), strict=True):
        path = tmp_path / f"{name}{suffix}"
        table(path, ("filename", "label"), rows(first, last), separator)
    found = read(tmp_path, tmp_path / "cache")
    assert splits(found) == {"train": 8, "validation": 2, "test": 2}
    assert not found.read_headers().bad


def test_json_lines_for_each_split_beside_class_folders(tmp_path):
    for name in "ab":
        sounds(tmp_path / name, 4)
    for name, numbers in (("train", (0, 1, 2)), ("test", (3,))):
        values = [
            {"audio_filepath": f"{label}/{i}.wav", "command": label}
            for label in "ab"
            for i in numbers
        ]
        text = "\n".join(map(json.dumps, values))
        (tmp_path / f"{name}.jsonl").write_text(text)
    found = read(tmp_path, tmp_path / "cache")
    assert splits(found) == {"train": 6, "test": 2}
    assert found.class_names == ("a", "b")


def test_dev_is_for_training_where_nothing_else_is(tmp_path):
    sounds(tmp_path / "audio", 12)
    table(tmp_path / "meta/dev.csv", ("fname", "label"), rows(0, 8, suffix=""))
    table(tmp_path / "meta/eval.csv", ("fname", "label"), rows(8, 12, suffix=""))
    found = read(tmp_path, tmp_path / "cache")
    assert splits(found) == {"train": 8, "test": 4}
    for part, name in (("dev", "a"), ("dev", "b"), ("test", "a"), ("test", "b")):
        sounds(tmp_path / "d" / part / name, 2)
    assert splits(read(tmp_path / "d", tmp_path)) == {"train": 4, "test": 4}


def test_a_column_of_splits_in_dev(tmp_path):
    """As in FSD50K, whose files may also be named with their suffix."""
    sounds(tmp_path, 12)
    divided = [(*row, ("train", "val")[i > 5]) for i, row in enumerate(rows(0, 8))]
    table(tmp_path / "dev.csv", ("fname", "labels", "split"), divided)
    table(tmp_path / "eval.csv", ("fname", "labels"), rows(8, 12))
    found = read(tmp_path, tmp_path / "cache")
    assert splits(found) == {"train": 6, "validation": 2, "test": 4}


def test_unlabelled_test_clips_are_named(tmp_path, caplog):
    """As on Kaggle: train.csv and test.csv beside the folders train and test."""
    sounds(tmp_path / "train", 8)
    sounds(tmp_path / "test", 3)
    table(tmp_path / "train.csv", ("fname", "label"), rows(0, 8))
    table(tmp_path / "test.csv", ("fname",), [("0.wav",)])
    table(tmp_path / "sample_submission.csv", ("fname", "label"), rows(0, 2))
    found = read(tmp_path, tmp_path / "cache")
    assert splits(found) == {"train": 8}
    assert found.names[0] == "train/0.wav"
    assert "test.csv gives no labels, so 1 recording is not used" in caplog.text
    assert ("recording that no table lists", 3, "0.wav") in found.left_out
    assert ("table that names no split", 1, "sample_submission.csv") in found.left_out
    table(tmp_path / "train.csv", ("fname",), [("0.wav",)])
    with pytest.raises(UserError, match=r"test.csv and train.csv in .* have no labels"):
        read(tmp_path, tmp_path / "cache")


def test_a_table_of_one_split_says_that_others_are_not_read(tmp_path, caplog):
    sounds(tmp_path, 4)
    for name in ("train", "test"):
        table(tmp_path / f"{name}.csv", ("path", "label"), rows(0, 4))
    assert len(read(tmp_path / "train.csv", tmp_path / "cache")) == 4
    assert "train.csv is read alone, without test.csv" in caplog.text
    with pytest.raises(UserError, match="with the split test and again"):
        read(tmp_path, tmp_path / "cache")


def test_the_only_table_of_a_folder(tmp_path):
    sounds(tmp_path / "audio", 4)
    path = table(tmp_path / "labels.csv", ("file", "class"), rows(0, 4))
    table(tmp_path / "notes.csv", ("day", "weather"), [(1, "sun")])
    assert len(read(tmp_path, tmp_path / "cache")) == 4
    path.rename(tmp_path / "one.csv")
    table(tmp_path / "two.csv", ("file", "class"), rows(0, 4))
    with pytest.raises(UserError, match=r"several tables, one\.csv and two\.csv"):
        read(tmp_path, tmp_path / "cache")


def test_a_table_is_not_read_beside_class_folders(tmp_path):
    for name in "ab":
        sounds(tmp_path / name, 3)
    table(tmp_path / "features.csv", ("file", "label"), [("a/0.wav", "x")])
    assert read(tmp_path, tmp_path / "cache").class_names == ("a", "b")


def test_slices_of_urbansound8k(tmp_path):
    for i in range(8):
        sounds(tmp_path / f"audio/fold{i % 2 + 1}", 1, first=i)
    header = ["slice_file_name", "fsID", "start", "end", "fold", "classID", "class"]
    listed = [
        (f"{i}.wav", i // 2, 70, 74, i % 2 + 1, 7 + i % 2, "ab"[i % 2])
        for i in range(8)
    ]
    table(tmp_path / "metadata/UrbanSound8K.csv", header, listed)
    for place in (tmp_path, tmp_path / "metadata" / "UrbanSound8K.csv"):
        found = read(place, tmp_path / "cache")
        assert found.folds.tolist() == [1, 2] * 4
        assert found.groups.tolist()[:3] == ["0", "0", "1"]
        assert found.class_names == ("a", "b")
        assert not found.read_headers().bad


@pytest.mark.parametrize(
    ("prefix", "folder"),
    [
        ("C:\\Users\\me\\sounds\\", "sounds"),
        ("/gone/elsewhere/", "x/y"),
        ("data/audio/", "audio"),
    ],
)
@pytest.mark.parametrize("suffix", [".wav", ".WAV", ".mp3", ""])
def test_files_elsewhere_are_found_by_their_names(prefix, folder, suffix, tmp_path):
    sounds(tmp_path / "data" / folder, 4)
    listed = rows(0, 4, prefix, suffix)
    path = table(tmp_path / "data" / "t.csv", ("path", "label"), listed)
    assert not read(path, tmp_path / "cache").read_headers().bad


def test_a_name_of_several_files_is_refused_or_that_of_the_split(tmp_path):
    for part in ("train", "test"):
        sounds(tmp_path / part, 4)
    path = table(tmp_path / "t.csv", ("path", "label"), rows(0, 4))
    with pytest.raises(UserError, match=r"line 2: 0\.wav could be .*test.* or .*train"):
        read(path, tmp_path / "cache")
    listed = [(*row, "train") for row in rows(0, 4)]
    table(path, ("path", "label", "split"), listed)
    found = read(path, tmp_path / "cache")
    assert found.names[0] == "train/0.wav"
    # Other speakers' files of the same name are not taken.
    listed = [(f"s{i}/{i}.wav", "ab"[i % 2]) for i in range(4)]
    table(path, ("path", "label"), listed)
    with pytest.raises(UserError, match="none of 4 listed files exists"):
        read(path, tmp_path / "cache")


def test_splits_and_folds_in_the_folders_of_listed_files(tmp_path):
    for part in ("train", "test", "fold1", "fold2"):
        sounds(tmp_path / "d" / part, 2)
    header = ("file_name", "label")
    listed = [*rows(0, 2, "train/"), *rows(0, 2, "test/")]
    path = table(tmp_path / "d" / "metadata.csv", header, listed)
    found = read(path, tmp_path / "cache")
    assert found.splits.tolist() == ["train"] * 2 + ["test"] * 2
    assert splits(read(tmp_path / "d", tmp_path / "cache")) == splits(found)
    table(path, header, [*rows(0, 2, "fold1/"), *rows(0, 2, "fold2/")])
    assert read(path, tmp_path / "cache").folds.tolist() == [1, 1, 2, 2]
    table(path, header, [*rows(0, 2, "fold1/"), *rows(0, 2, "test/")])
    assert splits(read(path, tmp_path / "cache")) == {"": 4}


def test_splits_below_classes_and_in_lists(tmp_path, caplog):
    for name in "ab":
        for part in ("train", "test"):
            sounds(tmp_path / "d" / name / part, 2)
        sounds(tmp_path / "e" / name, 4)
    assert splits(read(tmp_path / "d", tmp_path)) == {"train": 4, "test": 4}
    (tmp_path / "e" / "testing_list.txt").write_text("a/0.wav\nb/0.wav\n")
    (tmp_path / "e" / "validation_list.txt").write_text("b/1.wav\n")
    found = read(tmp_path / "e", tmp_path)
    assert splits(found) == {"train": 5, "test": 2, "validation": 1}
    for name in "ab":
        sounds(tmp_path / "f" / "train" / name, 2)
    sounds(tmp_path / "f" / "test", 2)
    assert splits(read(tmp_path / "f", tmp_path)) == {"train": 4}
    assert "test are in no class folders, so they are not used" in caplog.text


def test_folders_within_folders(tmp_path):
    for part in ("train", "test"):
        for name in "ab":
            sounds(tmp_path / "d" / "my-data" / "audio" / part / name, 2)
    assert splits(read(tmp_path / "d", tmp_path)) == {"train": 4, "test": 4}
    sounds(tmp_path / "e" / "sub", 4)
    table(tmp_path / "e" / "sub" / "labels.csv", ("path", "label"), rows(0, 4))
    assert len(read(tmp_path / "e", tmp_path)) == 4
    for name in "ab":
        sounds(tmp_path / "f" / "train" / "audio" / name, 2)
    sounds(tmp_path / "f" / "test" / "audio", 2)
    assert splits(read(tmp_path / "f", tmp_path)) == {"train": 4}


def test_names_with_splits_beside_other_folders(tmp_path):
    for part in ("train_audio", "test_audio"):
        for name in "ab":
            sounds(tmp_path / part / name, 2)
    sounds(tmp_path / "noise", 3)
    found = read(tmp_path, tmp_path / "cache")
    assert found.class_names == ("a", "b")
    assert splits(found) == {"train": 4, "test": 4}
    assert ("folder that is not one of the splits", 3, "noise") in found.left_out


CARD = """---
license: mit
configs:
- config_name: default
  data_files:
  - split: train
    path: [one*, missing*]
  - split: test
    path: two*
---
# Card
"""


def test_splits_of_a_card_of_the_hub(tmp_path):
    sounds(tmp_path, 6)
    table(tmp_path / "one.csv", ("file_name", "label"), rows(0, 4))
    table(tmp_path / "two.csv", ("file_name", "label"), rows(4, 6))
    (tmp_path / "README.md").write_text(CARD)
    assert splits(read(tmp_path, tmp_path / "cache")) == {"train": 4, "test": 2}
    place = tmp_path / "parquet"
    place.mkdir()
    (place / "README.md").write_text(CARD)
    for name, count in (("one-0", 4), ("two-0", 2)):
        contents = [(tmp_path / f"{i}.wav").read_bytes() for i in range(count)]
        cells = {"audio": contents, "label": ["a", "b"] * (count // 2)}
        pq.write_table(pa.table(cells), place / f"{name}.parquet")
    assert splits(read(place, tmp_path / "cache")) == {"train": 4, "test": 2}
    card = CARD.replace("---\n# Card", "- config_name: other\n  data_files: two*\n---")
    (place / "README.md").write_text(card)
    assert splits(read(place, tmp_path / "cache")) == {"train": 4, "test": 2}
    (place / "README.md").write_text(card.replace("default", "one"))
    with pytest.raises(UserError, match="has the configurations one, other: copy"):
        read(place, tmp_path / "cache")


PATHS = """fname filename file_name file path filepath file_path audio audio_path wav
wav_filename wav_file clip clip_id slice_file_name recording itemid utterance_id id
audio_filepath sound_file recording_id name"""
LABELS = """label class class_name category target species primary_label ebird_code
emotion genre command intent labels tags scene_label event_label hasbird classID"""


@pytest.mark.parametrize("name", PATHS.split())
def test_names_of_columns_of_files(name, tmp_path):
    sounds(tmp_path, 2)
    path = table(tmp_path / "t.csv", (name, "label"), rows(0, 2))
    found = read(path, tmp_path / "cache")
    assert found.names == ("0.wav", "1.wav")
    assert found.groups.tolist() == ["", ""]


@pytest.mark.parametrize("name", LABELS.split())
def test_names_of_columns_of_labels(name, tmp_path):
    sounds(tmp_path, 2)
    path = table(tmp_path / "t.csv", ("path", name), rows(0, 2))
    assert read(path, tmp_path / "cache").class_names == ("a", "b")


def test_columns_that_say_the_same_or_contradict_each_other(tmp_path, caplog):
    sounds(tmp_path / "audio", 4)
    header = ("filename", "filepath", "target", "genre", "emotion")
    listed = [(f"{i}.wav", f"audio/{i}.wav", i % 2, "ab"[i % 2], i) for i in range(4)]
    path = table(tmp_path / "t.csv", header[:4], [row[:4] for row in listed])
    with caplog.at_level(logging.INFO, "audiodd_jax"):
        assert read(path, tmp_path / "cache").class_names == ("a", "b")
    assert "label is genre, not target" in caplog.text
    assert "path is filepath, not filename" in caplog.text
    table(path, header, listed)
    words = "emotion and genre and target could both be the column label"
    with pytest.raises(UserError, match=words):
        read(path, tmp_path / "cache")
    # A column that is named for it decides.
    table(path, ("path", "label", "emotion"), [row[1:2] + row[3:] for row in listed])
    assert read(path, tmp_path / "cache").class_names == ("a", "b")


def test_a_column_set_may_mean_something_else(tmp_path):
    sounds(tmp_path, 4)
    listed = [(*row, "small") for row in rows(0, 4)]
    path = table(tmp_path / "t.csv", ("path", "label", "set"), listed)
    assert splits(read(path, tmp_path / "cache")) == {"": 4}
    listed[0] = (*listed[0][:2], "test-other")
    table(path, ("path", "label", "set"), listed)
    with pytest.raises(UserError, match="line 3: the split is train, validation or"):
        read(path, tmp_path / "cache")
