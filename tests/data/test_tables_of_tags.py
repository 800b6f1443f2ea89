import csv

import checks
import numpy as np
import pytest
import soundfile

from audiodd_jax.config import DataConfig
from audiodd_jax.data import datasets, splits, synthetic, tags
from audiodd_jax.errors import UserError


def write_table(folder, rows, name="clips.csv", header=("path", "label")):
    """A table of tones of different pitch, one per row."""
    time = np.arange(2000) / 8000
    for i, row in enumerate(rows):
        wave = 0.4 * np.sin(2 * np.pi * (200 + 50 * i) * time)
        soundfile.write(folder / row[0], wave.astype(np.float32), 8000)
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return folder / name


def read(place):
    config = DataConfig(name="folder", data_dir=str(place))
    source = checks.open_source(config, place.parent / "cache")
    return source, source.read()


def test_a_semicolon_anywhere_makes_the_labels_tags(tmp_path):
    rows = [
        ("a.wav", "dog; siren"),
        ("b.wav", "siren;"),
        ("c.wav", ""),
        ("d.wav", "cat"),
    ]
    source, found = read(write_table(tmp_path, [*rows, ("e.wav", "dog;dog")]))
    assert source.has_tags
    assert found.class_names == ("cat", "dog", "siren")
    assert found.labels.tolist() == [
        [0, 1, 1],
        [0, 0, 1],
        [0, 0, 0],
        [1, 0, 0],
        [0, 1, 0],
    ]


def test_without_a_semicolon_labels_are_required_classes(tmp_path):
    source, found = read(write_table(tmp_path, [("a.wav", "dog"), ("b.wav", "cat")]))
    assert not source.has_tags
    assert found.labels.tolist() == [1, 0]
    with pytest.raises(UserError, match="line 3 lacks its label"):
        read(write_table(tmp_path, [("a.wav", "dog"), ("b.wav", "")]))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("a.wav", ";"), ("b.wav", "dog;")], "holds 1 class of"),
        ([("a.wav", "x;y"), ("a.wav", "x")], "with the label x;y and again with"),
    ],
)
def test_damaged_tables_of_tags_are_refused(tmp_path, rows, words):
    with pytest.raises(UserError, match=words):
        read(write_table(tmp_path, rows))


def test_a_folder_whose_name_has_a_semicolon_is_one_class(tmp_path):
    for name in ("a;b", "c"):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        soundfile.write(tmp_path / "sounds" / name / "x.wav", np.zeros(800), 8000)
    source, found = read(tmp_path / "sounds")
    assert not source.has_tags
    assert found.class_names == ("a;b", "c")


def test_counts_strata_and_names_of_both_forms():
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1], [1, 0, 1]], np.int8)
    assert tags.counts(labels, 3).tolist() == [4, 1, 2]
    # The rarest tag of each clip; clips without tags are the class 3.
    assert tags.strata(labels).tolist() == [1, 0, 3, 2, 2]
    assert tags.in_words(labels[3], ("a", "b", "c")) == "a;c"
    classes = np.array([2, 0, 2], np.int32)
    assert tags.counts(classes, 4).tolist() == [1, 0, 2, 0]
    assert tags.strata(classes) is classes
    assert tags.in_words(classes[0], ("a", "b", "c")) == "c"


def test_validation_clips_are_stratified_by_the_rarest_tag():
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 4)) < [0.5, 0.3, 0.1, 0.05]).astype(np.int8)
    part, none = np.where(np.arange(400) < 300, "train", "test"), np.full(400, "")
    found = splits.assign(
        labels, part, np.zeros(400, np.int32), none, DataConfig(validation_fraction=0.2)
    )
    train, validation = (
        labels[rows].sum(0) for rows in (found.train, found.validation)
    )
    assert (validation >= 1).all()
    np.testing.assert_allclose(validation / (train + validation), 0.2, atol=0.07)


def test_tones_tagged_has_one_to_three_tags_and_the_sounds_of_tones():
    found = datasets.open_source(DataConfig(name="tones_tagged")).read()
    assert found.class_names == synthetic.CLASS_NAMES
    each = found.labels.sum(1)
    assert set(each.tolist()) == {1, 2, 3}
    assert (found.labels.sum(0) > 0.15 * len(found)).all()
    first, again = found.load(5)[0], found.load(5)[0]
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - found.load(6)[0]).max() > 0.01
    assert first.shape == (8000,)
    assert 0.02 < np.abs(first).max() <= 1
