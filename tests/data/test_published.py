"""Speech Commands, UrbanSound8K and ESC-50 as they are read, from miniatures."""

import pickle
import shutil

import numpy as np
import published
import pytest
import soundfile
from published import read, source

from audiodd_jax.config import DataConfig
from audiodd_jax.data import audio, splits
from audiodd_jax.data.published import esc50, speech_commands, urbansound8k
from audiodd_jax.errors import UserError


def test_published_counts_are_those_of_the_papers():
    first, second = speech_commands.WORDS.values()
    assert (len(first), sum(first.values())) == (30, 64_721)
    assert (len(second), sum(second.values())) == (35, 105_829)
    for version, words in speech_commands.WORDS.items():
        parts = speech_commands.PART_CLIPS[version]
        assert sum(parts.values()) == sum(words.values())
    folds = np.array(list(urbansound8k.PUBLISHED_CLIPS.values()))
    assert folds.sum() == 8732
    assert folds[:, :9].sum() == 7895
    assert folds.sum(axis=0).tolist() == [
        *(873, 888, 925, 990, 936, 823, 838, 806, 816, 837)
    ]
    assert len(set(esc50.CLASS_NAMES)) == 50
    assert set(esc50.ESC10_NAMES) < set(esc50.CLASS_NAMES)


def test_speech_commands_by_the_official_lists(commands, tmp_path):
    found = read("speech_commands", commands, tmp_path)
    assert found.class_names == tuple(
        sorted([*published.WORDS, "on", "off", "cat", "tree"])
    )
    lists = {
        part: set((commands / file).read_text().split())
        for file, part in speech_commands.LISTS.items()
    }
    for name, label, part in zip(found.names, found.labels, found.splits, strict=True):
        assert found.class_names[label] == name.split("/")[0]
        told = [p for p, names in lists.items() if name in names]
        assert part == (told[0] if told else "train")
    assert not any("_background_noise_" in name for name in found.names)
    # No speaker is on both sides, and background noise belongs to no class.
    speakers = [set(found.groups[found.splits == p]) for p in ("train", "test")]
    assert not speakers[0] & speakers[1]
    noise = found.load_noise()
    assert [waveform.size for waveform, _ in noise] == [16_000 * 12] * 6
    waveform, rate = found.load(5)
    exact, _ = audio.decode(commands / found.names[5])
    assert rate == 16_000
    np.testing.assert_array_equal(waveform, exact)


def test_the_official_hash():
    """Speakers of the published testing and validation lists."""
    parts = speech_commands.official_part
    # Every clip of a speaker is on one side, whatever its number.
    assert parts("0a7c2a8d_nohash_0.wav") == parts("0a7c2a8d_nohash_4.wav")
    shares = np.array([parts(f"{i:08x}_nohash_0.wav") for i in range(3000)])
    assert abs((shares == "validation").mean() - 0.1) < 0.02
    assert abs((shares == "test").mean() - 0.1) < 0.02


def test_variants_of_speech_commands(commands, tmp_path):
    mini = read("speech_commands", commands, tmp_path, variant="mini")
    assert mini.class_names == (
        "down",
        "go",
        "left",
        "no",
        "right",
        "stop",
        "up",
        "yes",
    )
    twelve = read("speech_commands", commands, tmp_path, variant="twelve")
    names = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
    assert twelve.class_names == (*names, "_unknown_", "_silence_")
    for part in ("train", "validation", "test"):
        labels = twelve.labels[twelve.splits == part]
        assert len(set(np.bincount(labels, minlength=12))) == 1
    unknown = [n for n, i in zip(twelve.names, twelve.labels, strict=True) if i == 10]
    assert {name.split("/")[0] for name in unknown} <= {"bed", "zero", "cat", "tree"}
    silent = int(np.flatnonzero(twelve.labels == 11)[0])
    waveform, rate = twelve.load(silent)
    assert waveform.size == rate == 16_000
    again = read("speech_commands", commands, tmp_path / "b", variant="twelve")
    assert again.names == twelve.names
    np.testing.assert_array_equal(again.load(silent)[0], waveform)
    with pytest.raises(UserError, match=r"no variant 'v3'; its .*: v0\.01, v0\.02"):
        read("speech_commands", commands, tmp_path, variant="v3")
    with pytest.raises(UserError, match="its variants: none"):
        read("esc50", commands, tmp_path, variant="v3")


def test_no_moment_of_noise_is_in_two_splits(commands):
    noise = tuple(sorted((commands / speech_commands.NOISE_FOLDER).glob("*.wav")))
    counts = {"train": 40, "validation": 20, "test": 20}
    clips = speech_commands.cut_silence(noise, counts)
    spans = {part: [] for part in counts}
    for clip in clips:
        spans[clip.part].append((clip.start, clip.start + clip.seconds))
    assert {part: len(found) for part, found in spans.items()} == counts
    ends = [max(b for _, b in found) for found in spans.values()]
    starts = [min(a for a, _ in found) for found in spans.values()]
    assert ends[0] <= starts[1]
    assert ends[1] <= starts[2]
    assert ends[2] <= 12.0


def test_the_archive_of_eight_words_has_no_lists(commands, tmp_path, monkeypatch):
    folder = tmp_path / "mini_speech_commands"
    for word in speech_commands.MINI_WORDS:
        shutil.copytree(commands / word, folder / word)
    clips = len(list((folder / "go").iterdir()))
    monkeypatch.setattr(speech_commands, "MINI_CLIPS", clips)
    mini = source("speech_commands", folder, tmp_path, variant="mini").read()
    listed = read("speech_commands", commands, tmp_path, variant="mini")
    assert dict(zip(mini.names, mini.splits, strict=True)) == dict(
        zip(listed.names, listed.splits, strict=True)
    )


def test_urbansound8k_of_many_encodings(urban, tmp_path):
    found = read("urbansound8k", urban, tmp_path)
    assert len(found) == 200
    assert found.class_names == urbansound8k.CLASS_NAMES
    assert np.bincount(found.folds)[1:].tolist() == [20] * 10
    seconds, rates, _ = found.read_headers()
    assert set(rates) == {rate for rate, _, _ in published.ENCODINGS}
    for i in range(0, 200, 7):
        path = urban / "audio" / f"fold{found.folds[i]}" / found.names[i]
        exact, rate = audio.decode(path)
        waveform, told = found.load(i)
        assert told == rate == rates[i]
        assert seconds[i] == pytest.approx(exact.size / rate)
        np.testing.assert_allclose(waveform, exact, atol=2 / 32768)
        assert found.groups[i] == found.names[i].split("-")[0]
        assert found.labels[i] == int(found.names[i].split("-")[1])


@pytest.mark.parametrize(
    ("name", "classes", "fold"), [("esc50", 50, 5), ("esc10", 10, 5), ("esc10", 10, 2)]
)
def test_esc(environment, tmp_path, name, classes, fold):
    found = read(name, environment, tmp_path)
    assert len(found.class_names) == classes
    assert np.bincount(found.folds)[1:].tolist() == [2 * classes] * 5
    config = DataConfig(name=name, fold=0 if fold == 5 else fold)
    parts = splits.assign(found.labels, found.splits, found.folds, found.groups, config)
    assert set(found.folds[parts.test]) == {fold}
    assert parts.validation.size > 0
    sides = [set(found.groups[part]) for part in parts]
    assert not sides[0] & sides[1]
    assert not (sides[0] | sides[1]) & sides[2]


def test_clips_are_decoded_in_another_process(environment, tmp_path):
    found = read("esc10", environment, tmp_path)
    copy = pickle.loads(pickle.dumps(found.load))
    for index in (0, len(found) - 1):
        np.testing.assert_array_equal(copy(index)[0], found.load(index)[0])


def int16_record(path, start=0.0, seconds=0.0, gain=1.0):
    """The samples of a clip as they were stored when datasets were kept as int16."""
    waveform, rate = audio.decode(path)
    first = round(start * rate)
    last = first + round(seconds * rate) if seconds else waveform.size
    waveform = gain * waveform[first:last]
    scaled = waveform * (32768 / max(1.0, float(np.abs(waveform).max(initial=0))))
    stored = np.clip(np.round(scaled), -32768, 32767).astype(np.int16)
    return stored.astype(np.float32) / 32768


def test_samples_are_those_of_int16_records(urban, commands, tmp_path):
    folder = tmp_path / "UrbanSound8K"
    shutil.copytree(urban, folder)
    loud = sorted((folder / "audio" / "fold4").glob("*.wav"))[0]
    wave, rate = soundfile.read(loud, dtype="float32")
    soundfile.write(loud, 7 * wave, rate, subtype="FLOAT")
    found = read("urbansound8k", folder, tmp_path / "cache")
    for i, (name, fold) in enumerate(zip(found.names, found.folds, strict=True)):
        expected = int16_record(folder / "audio" / f"fold{fold}" / name)
        np.testing.assert_array_equal(found.load(i)[0], expected)
    # Silence is an excerpt at a random level; background noise is read whole.
    found = read("speech_commands", commands, tmp_path, variant="twelve")
    noise = sorted((commands / speech_commands.NOISE_FOLDER).glob("*.wav"))
    silent = {
        part: int((found.labels[found.splits == part] == 11).sum())
        for part in speech_commands.SPLITS
    }
    for clip in speech_commands.cut_silence(noise, silent):
        expected = int16_record(clip.path, clip.start, clip.seconds, clip.gain)
        i = found.names.index(clip.name)
        np.testing.assert_array_equal(found.load(i)[0], expected)
        assert found.read_headers().seconds[i] == 1.0
    for path, (waveform, _) in zip(noise, found.load_noise(), strict=True):
        np.testing.assert_array_equal(waveform, int16_record(path))


def test_loud_floating_point_recordings_are_scaled_not_clipped(environment, tmp_path):
    folder = tmp_path / "ESC-50-master"
    shutil.copytree(environment, folder)
    loud = sorted((folder / "audio").glob("*-0.wav"))[0]
    wave, rate = soundfile.read(loud, dtype="float32")
    soundfile.write(loud, 20 * wave, rate, subtype="FLOAT")
    found = read("esc10", folder, tmp_path / "cache")
    kept, _ = found.load(found.names.index(loud.name))
    np.testing.assert_allclose(kept, wave / np.abs(wave).max(), atol=1e-4)
