"""Copies of published datasets: compressed, at another rate, or with fewer classes."""

import shutil

import numpy as np
import pytest
from published import read, source

from audiodd_jax.config import DataConfig, presets
from audiodd_jax.data import splits
from audiodd_jax.data.published import speech_commands
from audiodd_jax.errors import UserError
from audiodd_jax.features import cache


def index(found):
    return list(zip(found.names, found.splits, found.folds, found.groups, strict=True))


@pytest.mark.parametrize(
    ("name", "fixture"),
    [("speech_commands", "commands"), ("esc10", "environment")],
)
def test_other_suffixes_under_the_published_names(name, fixture, request, tmp_path):
    """Tables and lists name WAV files."""
    folder, copy = request.getfixturevalue(fixture), tmp_path / "copy"
    shutil.copytree(folder, copy)
    for path in copy.rglob("*.wav"):
        path.rename(path.with_suffix(".ogg"))
    expected, found = (read(name, place, tmp_path) for place in (folder, copy))
    assert index(found) == index(expected)
    np.testing.assert_array_equal(found.load(3)[0], expected.load(3)[0])
    assert bool(found.load_noise) == bool(expected.load_noise)


def test_a_wav_file_precedes_its_compressed_copy(commands, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(commands, folder)
    first = sorted((folder / "bed").iterdir())[0]
    for suffix in (".flac", ".ogg"):
        first.with_suffix(suffix).write_bytes(b"not this one")
    found = read("speech_commands", folder, tmp_path)
    assert index(found) == index(read("speech_commands", commands, tmp_path))
    found.load(0)
    counts = {reason: count for reason, count, _ in found.left_out}
    assert counts["recording that is not part of this dataset"] == 2


def test_a_copy_with_fewer_words_says_how_many(commands, tmp_path):
    with pytest.raises(UserError, match=r"bird: 0 of 1731 clips"):
        source("speech_commands", commands, tmp_path).read()
    found = read("speech_commands", commands, tmp_path)
    clips = sum(speech_commands.WORDS["v0.01"].values())
    said = f"{len(found)} of {clips:,} published clips and 14 of 30 classes"
    assert found.present == said


@pytest.mark.parametrize("rate", [44_100, 16_000])
def test_esc50_takes_the_rate_of_its_recordings(rate):
    settings = presets.for_dataset("esc50").features
    chosen = cache.resolve(settings, np.full(3, 5.0), np.array([rate, rate, 48_000]))
    assert chosen.sample_rate == rate


def test_a_rate_above_that_of_the_recordings_is_reported(caplog):
    settings = presets.for_dataset("urbansound8k").features
    cache.resolve(settings, np.full(2, 4.0), np.array([8_000, 8_000]))
    assert "at 22050 Hz, the mel bins above 4000 Hz are empty" in caplog.text


def test_the_real_esc50(real_audio, tmp_path):
    found = read("esc50", real_audio("esc50"), tmp_path)
    assert (len(found), len(found.class_names), found.present) == (2000, 50, "")
    assert np.bincount(found.folds)[1:].tolist() == [400] * 5
    assert {found.load(i)[1] for i in (0, 999, 1999)} == {16_000}


def test_the_real_speech_commands(real_audio, tmp_path):
    folder = real_audio("speech_commands")
    found = read("speech_commands", folder, tmp_path)
    words = ("bed", "cat", "five", "four", "happy", "one", "three", "two", "zero")
    assert found.class_names == words
    assert found.present == "9,536 of 64,721 published clips and 9 of 30 classes"
    settings = DataConfig("speech_commands", allow_partial=True)
    given = (found.labels, found.splits, found.folds, found.groups)
    parts = splits.assign(*given, settings)
    assert [part.size for part in parts] == [5411, 2050, 2075]
    speakers = [set(found.groups[part]) for part in parts]
    assert not speakers[0] & speakers[2]
    names = (folder / "testing_list.txt").read_text().split()
    assert {found.names[i] for i in parts.test} == set(names)
