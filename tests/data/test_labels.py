"""Labels, splits, folds and groups as people and libraries write them."""

import json
import logging
from pathlib import Path

import checks
import numpy as np
import pytest
import soundfile

from audiodd_jax.config import DataConfig
from audiodd_jax.data import columns, names
from audiodd_jax.data.labels import labels_of
from audiodd_jax.data.tables import Row
from audiodd_jax.errors import UserError


def rows(cells, column="label"):
    return [Row(Path("t.csv"), i, {column: c}) for i, c in enumerate(cells, start=2)]


def labels(*cells, column="label"):
    return labels_of(rows(cells, column))


def sounds(folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        wave = 0.1 * rng.standard_normal(800)
        soundfile.write(folder / f"{i}.wav", wave, 8000)


def read(place, cache):
    config = DataConfig("folder", data_dir=str(place))
    return checks.open_source(config, cache).read()


@pytest.mark.parametrize(
    "cell",
    [
        ["dog", "siren"],
        "['dog', 'siren']",
        '["dog", "siren"]',
        "['dog' 'siren']",
        "['dog'\n 'siren']",
        "array(['dog', 'siren'], dtype=object)",
        "('dog', 'siren')",
        "{'dog', 'siren'}",
        "[dog, siren]",
        "siren;dog",
        "dog; siren;",
        ["siren", None, "dog", "dog"],
    ],
)
def test_lists_of_tags(cell):
    assert labels(cell, "siren") == ([("dog", "siren"), ("siren",)], True)


def test_lists_of_one_of_none_and_of_numbers():
    assert labels(["dog"], []) == ([("dog",), ()], True)
    assert labels("['dog']", "[]") == ([("dog",), ()], True)
    assert labels("[dog]", "[dog, cat]") == ([("dog",), ("cat", "dog")], True)
    assert labels("[0 12]", "[3]") == ([("0", "12"), ("3",)], True)
    assert labels([0, 1.0], "2") == ([("0", "1"), ("2",)], True)
    assert labels("['it\\'s', \"a, b\"]", "x") == ([("a, b", "it's"), ("x",)], True)


def test_names_in_brackets_are_classes():
    names = ("[noise]", "(silence)", "<unk>", "it's", "none")
    assert labels(*names) == ([(name,) for name in names], False)


def test_commas_separate_tags_that_are_labels_elsewhere(caplog):
    found, has_tags = labels("dog", "siren", "dog,siren", "dog,rain")
    assert has_tags
    assert found == [("dog",), ("siren",), ("dog", "siren"), ("dog", "rain")]
    assert "'dog,siren' is dog;siren" in caplog.text
    assert labels("dog, siren", column="labels") == ([("dog", "siren")], True)


def test_commas_of_names_of_classes(caplog):
    names = ["Bark, dog", "Speech, male", "Speech, female", "Rain"]
    assert labels(*names, *names) == ([(name,) for name in names] * 2, False)
    assert "'Bark, dog' is read as one class, since no part" in caplog.text
    # Next to a list or a semicolon, a comma belongs to its name.
    assert labels("Bark, dog; Rain", "Rain")[0] == [("Bark, dog", "Rain"), ("Rain",)]
    # A schema of a Parquet file has exact names.
    assert labels({"name": "a;b"}, {"name": "a, b"}) == ([("a;b",), ("a, b",)], False)


@pytest.mark.parametrize(
    "cells", [("dog,siren", "dog,rain"), ("Bark, dog", "dog"), ("a, b", "b, c")]
)
def test_commas_that_may_mean_both_are_refused(cells):
    with pytest.raises(UserError, match=r"line 2: the label .* write \w+;\w+ for tags"):
        labels(*cells)


def test_bars_separate_tags_too(caplog):
    found, has_tags = labels("dog|siren", "dog", "siren")
    assert (found[0], has_tags) == (("dog", "siren"), True)
    assert "bars separate tags, so 'dog|siren' is dog;siren" in caplog.text
    assert labels("a|b", "c|d") == ([("a|b",), ("c|d",)], False)


def test_numbers_that_are_no_classes_are_refused():
    with pytest.raises(UserError, match="line 4: the label -1 often means that the"):
        labels("0", "1", "-1")
    assert labels("-1", "1", "-1")[0] == [("-1",), ("1",), ("-1",)]
    with pytest.raises(UserError, match="looks like one number for each class"):
        labels([1, 0, 1], "[0, 0, 1]")
    assert labels("[0, 1]", "[1]") == ([("0", "1"), ("1",)], True)


def test_names_that_differ_in_capital_letters_alone(tmp_path, caplog):
    sounds(tmp_path, 3)
    text = "path,label\n0.wav,Dog\n1.wav,dog \n2.wav,cat\n"
    (tmp_path / "t.csv").write_text(text)
    assert read(tmp_path / "t.csv", tmp_path).class_names == ("Dog", "cat", "dog")
    assert "'Dog' and 'dog' are different classes" in caplog.text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path\tlabel\n0.wav\ta\n1.wav\tb\n", "utf-16"),
        ("path;label\r\n0.wav;a\r\n1.wav;b\r\n", "utf-8-sig"),
        ("# mine\n# too\npath,label\n0.wav,a\n1.wav,b\n", "utf-8"),
        ('path\tlabel\tsays\n0.wav\ta\t"Hi" he\n1.wav\t"b"\t"no\n', "utf-8"),
        ("path|label\n0.wav|a\n1.wav|b\n", "utf-8"),
        ("sep=;\npath;label\n0.wav;a\n1.wav;b\n", "utf-8"),
        ('path,label,note\n0.wav,"a\n","x\ny"\n1.wav,b,\n', "utf-8"),
        (',path,label,\n1,"0.wav",a,\n2,1.wav,b,\n', "utf-8"),
    ],
)
def test_tables_as_programs_write_them(text, encoding, tmp_path):
    sounds(tmp_path, 2)
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    assert read(tmp_path / "t.csv", tmp_path).class_names == ("a", "b")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", "path,label\n0.wav,\xe9\n".encode("latin-1"), "save it in UTF-8"),
        ("t.xlsx", b"PK", "save it as CSV"),
        ("t.json", b"[]", "save it as CSV, or as JSON Lines"),
        ("t.csv", b"path,label,fold\n0.wav,a,train\n", "call the column split"),
    ],
)
def test_what_to_do_with_other_tables(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        read(tmp_path / name, tmp_path)


def test_a_label_that_is_missing():
    for cell in ("", " ", "nan", "NaN", "<NA>", None, float("nan")):
        with pytest.raises(UserError, match="line 3 lacks its label"):
            labels("x", cell)


@pytest.mark.parametrize(
    ("cell", "fold"),
    [("1.0", 1), (1.0, 1), (3, 3), (True, 1), ("fold 2", 2), ("Fold03", 3), ("0", 0)]
    + [(cell, None) for cell in ("", None, "nan", "NaN", "None", float("nan"))],
)
def test_folds_of_any_type(cell, fold):
    assert Row(Path("t"), 2, {"fold": cell}).fold == fold


@pytest.mark.parametrize(
    ("cell", "group"),
    [(0, "0"), (0.0, "0"), ("7.0", "7"), (7, "7"), (False, "False"), (b"s1", "s1")]
    + [(cell, "") for cell in (None, "nan", "None", "null", float("nan"))],
)
def test_groups_of_any_type(cell, group):
    assert Row(Path("t"), 2, {"group": cell})["group"] == group


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train-00000-of-00001", {"split": "train"}),
        ("partial-test", {"split": "test"}),
        ("esc50_validation", {"split": "validation"}),
        ("my.dev.2", {"split": "validation"}),
        ("fold_3-00000-of-00001", {"fold": 3}),
        ("us8k_fold10_test", {"split": "test", "fold": 10}),
        ("0000", {}),
        ("trainers", {}),
        ("manifold7", {}),
    ],
)
def test_splits_and_folds_in_names(name, part):
    assert names.part_in(name) == part


def test_a_name_of_two_splits_is_refused():
    with pytest.raises(UserError, match="has the splits test and train"):
        names.part_in("train_test_0")


def test_columns_of_any_case_and_choices_between_them(caplog):
    path = Path("t.csv")
    with caplog.at_level(logging.INFO, "audiodd_jax"):
        found = columns.columns_of(
            path, ["File Name", "Class", "Speaker-ID", "speaker", "tags", "x", "x"]
        )
    assert found == {"path": "File Name", "label": "Class", "group": "speaker"}
    assert "label is Class, not tags" in caplog.text
    assert "group is speaker, not Speaker-ID" in caplog.text
    assert columns.columns_of(path, ["tags"]) == {"labels": "tags"}
    with pytest.raises(UserError, match="columns Label and label, which are one name"):
        columns.columns_of(path, ["path", "Label", "label"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "path,label\n0.wav,Speech, male\n",
            "line 2: it has 3 cells, and the header 2",
        ),
        ("path,label,label\n0.wav,a,b\n", "label and label, which are one name"),
        ('path,label\n0.wav,"a\n1.wav,b\n', "is not a CSV"),
    ],
)
def test_damaged_rows_are_refused(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        read(tmp_path / "t.csv", tmp_path)


def test_quoted_cells_after_spaces_and_empty_cells_at_the_end(tmp_path):
    sounds(tmp_path, 2)
    text = 'path, label, fold\n0.wav, "Bark, dog", 1.0,\n\n"1.wav", "Rain", 2.0\n'
    (tmp_path / "t.csv").write_text(text)
    found = read(tmp_path / "t.csv", tmp_path)
    assert found.class_names == ("Bark, dog", "Rain")
    assert found.folds.tolist() == [1, 2]


def test_json_lines(tmp_path):
    sounds(tmp_path / "d", 3)
    values = [
        {"file_name": "0.wav", "label": ["dog", "cat"], "speaker": 0, "split": "train"},
        {"file_name": "1.wav", "label": [], "speaker": 0, "split": "train"},
        {"file_name": "2.wav", "label": ["dog"], "speaker": None, "split": "test"},
    ]
    lines = "\n".join(map(json.dumps, values))
    (tmp_path / "d" / "metadata.jsonl").write_text(lines + "\n")
    found = read(tmp_path / "d", tmp_path)
    assert found.class_names == ("cat", "dog")
    assert found.labels.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert found.groups.tolist() == ["0", "0", ""]
    assert found.splits.tolist() == ["train", "train", "test"]
    (tmp_path / "d" / "metadata.jsonl").write_text(lines + "\n[1]\n")
    with pytest.raises(UserError, match="line 4 is no JSON object"):
        read(tmp_path / "d", tmp_path)


def test_folders_of_partial_splits(tmp_path):
    for part, label in (("train", "a"), ("train", "b"), ("test", "a")):
        sounds(tmp_path / f"my_{part}" / label, 2)
    found = read(tmp_path, tmp_path / "cache")
    assert found.class_names == ("a", "b")
    assert sorted(found.splits.tolist()) == ["test"] * 2 + ["train"] * 4


def test_a_column_and_the_names_of_folders(tmp_path, caplog):
    """A column decides, unless folders of several splits contradict it."""
    sounds(tmp_path / "train", 3)
    text = "file_name,label,split\n0.wav,a,train\n1.wav,b,test\n2.wav,b,\n"
    (tmp_path / "train" / "metadata.csv").write_text(text)
    found = read(tmp_path, tmp_path / "cache")
    assert found.splits.tolist() == ["train", "test", "train"]
    assert "the column split is used, not the name" in caplog.text
    sounds(tmp_path / "test", 1)
    (tmp_path / "test" / "metadata.csv").write_text("file_name,label\n0.wav,a\n")
    with pytest.raises(UserError, match="line 3: its split is test, but the name"):
        read(tmp_path, tmp_path / "cache")
