"""Folders, tables and files of users are read correctly, or refused by name."""

import logging
import os
import shutil

import checks
import numpy as np
import pytest
import soundfile

from audiodd_jax.config import DataConfig, presets
from audiodd_jax.data import audio, datasets, splits
from audiodd_jax.errors import UserError

RATE = 8000


def noise(seed, seconds=0.25, rate=RATE):
    x = np.random.default_rng(seed).standard_normal(int(seconds * rate))
    return (0.1 * x).astype(np.float32)


def fill(folder, classes=("cat", "dog"), clips=4, seed=0):
    """A folder of classes, every recording different."""
    for i, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for j in range(clips):
            path = folder / name / f"{j}.wav"
            soundfile.write(path, noise([seed, i, j]), RATE)
    return folder


def source(place):
    return datasets.open_source(DataConfig(name="folder", data_dir=str(place)))


def read(place):
    return source(place).read()


def table(folder, text, name="table.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_folder_is_called_by_its_own_name(tmp_path):
    place = fill(tmp_path / "my birds", clips=10)
    title = lambda path: datasets.title_of(DataConfig("folder", data_dir=str(path)))
    assert title(place) == "my birds"
    assert title(table(place, "", "calls.csv")) == "calls"
    assert title(table(place, "", "metadata.csv")) == "my birds"
    assert datasets.title_of(DataConfig("tones", data_dir="x")) == "tones"
    (place / "metadata.csv").unlink()
    config = presets.for_dataset("folder", data__data_dir=str(place))
    data = checks.load(config, tmp_path / "cache")
    assert data.name == "folder"
    assert data.title == data.origin["dataset"] == "my birds"
    assert data.description["groups"].startswith("no groups: clips of one speaker")


def test_split_folders_without_a_test_folder(tmp_path):
    fill(tmp_path / "train", clips=10)
    fill(tmp_path / "validation", clips=2, seed=1)
    found = read(tmp_path)
    assert found.class_names == ("cat", "dog")
    parts = splits.assign(
        found.labels, found.splits, found.folds, found.groups, DataConfig()
    )
    assert (found.splits[parts.validation] == "validation").all()
    assert (found.splits[parts.test] == "train").all()


def test_a_folder_that_is_not_a_split_is_left_out_and_counted(tmp_path):
    for name in ("train", "test", "unlabelled"):
        fill(tmp_path / name, clips=3)
    found = read(tmp_path)
    assert set(found.splits) == {"train", "test"}
    assert len(found) == 12
    reason = "folder that is not one of the splits"
    assert (reason, 6, "unlabelled") in found.left_out


def test_fold_folders(tmp_path):
    for fold in (1, 2, 10):
        fill(tmp_path / f"fold{fold}", clips=2, seed=fold)
    found = read(tmp_path)
    assert found.class_names == ("cat", "dog")
    assert sorted(set(found.folds.tolist())) == [1, 2, 10]


def test_a_class_may_be_called_train(tmp_path):
    assert read(fill(tmp_path, ("train", "aeroplane"))).class_names == (
        "aeroplane",
        "train",
    )


def test_audiofolder_with_metadata(tmp_path):
    for split in ("train", "test"):
        fill(tmp_path / split, ("x",), seed=len(split))
        rows = "".join(f"x/{i}.wav,{'ab'[i % 2]}\n" for i in range(4))
        table(tmp_path / split, f"file_name,label\n{rows}", "metadata.csv")
    found = read(tmp_path)
    assert found.class_names == ("a", "b")
    assert {s: int((found.splits == s).sum()) for s in ("train", "test")} == {
        "train": 4,
        "test": 4,
    }


@pytest.mark.parametrize(
    "head",
    ["path,label", "file_name,class", "filename;category", "file\tlabel", "Path,Label"],
)
def test_usual_names_of_columns_and_separators(tmp_path, head):
    fill(tmp_path)
    separator = head[4 if head.startswith(("path", "file\t", "Path")) else 0 :]
    separator = next(c for c in ";\t," if c in separator)
    rows = [f"{c}/{i}.wav{separator}{c}" for c in ("cat", "dog") for i in range(4)]
    found = read(table(tmp_path, "\n".join([head, *rows]) + "\n"))
    assert len(found) == 8
    assert found.class_names == ("cat", "dog")


def test_columns_that_could_both_be_meant(tmp_path):
    text = "file,filename,label\na.wav,b.wav,x\n"
    with pytest.raises(UserError, match="filename and file could both be"):
        read(table(tmp_path, text))


def test_backslashes_are_read(tmp_path):
    fill(tmp_path)
    rows = "".join(f"{c}\\{i}.wav,{c}\n" for c in ("cat", "dog") for i in range(4))
    assert len(read(table(tmp_path, "path,label\n" + rows))) == 8


def test_a_table_whose_files_are_all_missing(tmp_path):
    rows = "".join(f"gone/{i}.wav,{'ab'[i % 2]}\n" for i in range(6))
    with pytest.raises(UserError, match="none of 6 listed files exists, such as"):
        read(table(tmp_path, "path,label\n" + rows))


def test_a_folder_whose_files_are_all_bad(tmp_path):
    for path in sorted(fill(tmp_path / "d").rglob("*.wav")):
        path.write_text(f"no sound {path}")
    config = presets.for_dataset("folder", data__data_dir=str(tmp_path / "d"))
    with pytest.raises(UserError, match=r"8 recordings cannot be used: .*not readable"):
        checks.prepare(config, tmp_path / "cache")


def test_folds_from_zero(tmp_path, caplog):
    fill(tmp_path)
    rows = "".join(f"{c}/{i}.wav,{c},{i}\n" for c in ("cat", "dog") for i in range(4))
    with caplog.at_level(logging.INFO, "audiodd_jax"):
        found = read(table(tmp_path, "path,label,fold\n" + rows))
    assert sorted(set(found.folds.tolist())) == [1, 2, 3, 4]
    assert "table.csv are numbered 1 to 4" in caplog.text


@pytest.mark.parametrize("fold", ["20240101000", "²", "-1", "1.5"])
def test_folds_that_are_not_numbers(tmp_path, fold):
    fill(tmp_path)
    text = f"path,label,fold\ncat/0.wav,cat,{fold}\ndog/0.wav,dog,1\n"
    with pytest.raises(UserError, match="line 2: the fold is a number up to 9999"):
        read(table(tmp_path, text))


def test_a_row_twice_is_read_once(tmp_path, caplog):
    fill(tmp_path)
    text = "path,label\ncat/0.wav,cat\n./cat/0.wav,cat\ndog/0.wav,dog\n"
    with caplog.at_level(logging.WARNING, "audiodd_jax"):
        assert len(read(table(tmp_path, text))) == 2
    assert "1 row repeats a file" in caplog.text


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("cat/0.wav,cat,train\ncat/0.wav,dog,train", "with the label cat and again"),
        ("cat/0.wav,cat,train\ncat/0.wav,cat,test", "with the split train and again"),
        ("cat/0.wav, ,train", "line 2 lacks its label"),
    ],
)
def test_contradictions_are_refused(tmp_path, rows, words):
    fill(tmp_path)
    text = f"path,label,split\n{rows}\ndog/0.wav,dog,train\n"
    with pytest.raises(UserError, match=words):
        read(table(tmp_path, text))


def test_identical_recordings_stay_together(tmp_path):
    fill(tmp_path, clips=20)
    for i in range(10, 20):
        shutil.copy(tmp_path / "cat" / "0.wav", tmp_path / "cat" / f"{i}.wav")
    found = read(tmp_path)
    same = found.groups[[0, *range(2, 12)]]  # 0, 10 to 19 in the order of names
    assert len(set(same)) == 1
    assert same[0]
    for seed in range(5):
        config = DataConfig(split_seed=seed)
        parts = splits.assign(
            found.labels, found.splits, found.folds, found.groups, config
        )
        known = [{g for g in found.groups[p].tolist() if g} for p in parts]
        assert not known[0] & known[2]
        assert not known[0] & known[1]


def test_identical_recordings_merge_groups(tmp_path):
    fill(tmp_path)
    shutil.copy(tmp_path / "cat" / "0.wav", tmp_path / "cat" / "1.wav")
    rows = "".join(f"{c}/{i}.wav,{c},g{i}\n" for c in ("cat", "dog") for i in range(4))
    found = read(table(tmp_path, "path,label,group\n" + rows))
    assert found.groups[0] == found.groups[1]
    assert found.groups[4] == found.groups[0]  # dog/0 is of the group g0 too
    assert found.groups[2] not in (found.groups[0], found.groups[3])


@pytest.mark.parametrize("column", ["split", "fold"])
def test_groups_on_both_sides_of_a_given_split_are_named(tmp_path, caplog, column):
    fill(tmp_path)
    of = (lambda i: ("train", "test")[i % 2]) if column == "split" else lambda i: i % 2
    rows = "".join(
        f"{c}/{i}.wav,{c},{of(i)},{c}{i // 2}\n"
        for c in ("cat", "dog")
        for i in range(4)
    )
    found = read(table(tmp_path, f"path,label,{column},group\n" + rows))
    with caplog.at_level(logging.WARNING, "audiodd_jax"):
        splits.assign(
            found.labels, found.splits, found.folds, found.groups, DataConfig()
        )
    assert "4 groups of recordings have clips on both sides" in caplog.text
    assert "cat0" in caplog.text


def test_a_class_without_test_clips_is_named(tmp_path, caplog):
    fill(tmp_path, ("a", "b", "c"))
    rows = "".join(
        f"{c}/{i}.wav,{c},{'test' if i == 0 and c != 'c' else 'train'}\n"
        for c in "abc"
        for i in range(4)
    )
    found = read(table(tmp_path, "path,label,split\n" + rows))
    with caplog.at_level(logging.WARNING, "audiodd_jax"):
        splits.assign(
            found.labels, found.splits, found.folds, found.groups, DataConfig()
        )
    assert "1 of 3 classes have no test clips" in caplog.text


def test_unread_files_are_counted(tmp_path):
    fill(tmp_path / "d")
    other = fill(tmp_path / "other", ("cat",), seed=9)
    for name in ("a.mid", "b.mid", "notes.txt", ".hidden.wav", "Thumbs.db"):
        (tmp_path / "d" / "cat" / name).write_bytes(b"x")
    (tmp_path / "d" / "__MACOSX" / "cat").mkdir(parents=True)
    (tmp_path / "d" / "cat" / "take.wav").mkdir()
    shutil.copy(other / "cat" / "0.wav", tmp_path / "d" / "loose.wav")
    os.symlink(other / "cat", tmp_path / "d" / "cat" / "session2")
    os.symlink(tmp_path / "d", tmp_path / "d" / "cat" / "circle")
    found = read(tmp_path / "d")
    assert found.class_names == ("cat", "dog")
    assert len(found) >= 12
    counts = {reason: count for reason, count, _ in found.left_out}
    assert counts["format .mid"] >= 2
    assert counts["format .txt"] >= 1
    assert counts["hidden or system file"] >= 2
    assert counts["hidden or system folder"] >= 1
    assert counts["recording outside of the class folders"] == 1


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [("au", "AU"), ("caf", "CAF"), ("w64", "W64"), ("wave", "WAV"), ("aifc", "AIFF")],
)
def test_formats_of_libsndfile(tmp_path, suffix, kind):
    fill(tmp_path)
    soundfile.write(tmp_path / "cat" / f"x.{suffix}", noise(1), RATE, format=kind)
    assert len(read(tmp_path)) == 9


def test_a_broken_link_is_bad_audio_and_can_be_skipped(tmp_path):
    fill(tmp_path / "d")
    os.symlink("/nowhere.wav", tmp_path / "d" / "cat" / "gone.wav")
    config = presets.for_dataset("folder", data__data_dir=str(tmp_path / "d"))
    with pytest.raises(UserError, match=r"does not exist \(a broken link"):
        checks.prepare(config, tmp_path / "cache")
    config.data.skip_bad_files = True
    assert checks.prepare(config, tmp_path / "cache").labels.size == 8


def test_names_that_are_not_utf8(tmp_path):
    fill(tmp_path / "d")
    odd = os.fsencode(tmp_path / "d") + b"/cat/caf\xe9.wav"
    shutil.copy(tmp_path / "d" / "dog" / "0.wav", odd)
    config = presets.for_dataset("folder", data__data_dir=str(tmp_path / "d"))
    assert checks.prepare(config, tmp_path / "cache").labels.size == 9


def test_one_class_in_two_unicode_forms(tmp_path):
    for i, name in enumerate(("caf\u00e9", "cafe\u0301", "tea")):
        fill(tmp_path, (name,), seed=i)
    assert read(tmp_path).class_names == ("caf\u00e9", "tea")


def headerless_mp3(path, seconds=3.0):
    """An MP3 as encoders write it to a pipe: without the frame that has its length."""
    rate = 44_100
    time = np.arange(int(seconds * rate)) / rate
    tone = 0.4 * np.sin(2 * np.pi * 440 * time) * (time > 1)  # the bit rate varies
    soundfile.write(path, tone.astype(np.float32), rate, format="MP3")
    data = path.read_bytes()
    first = data.index(b"\xff\xfb")
    second = data.index(b"\xff\xfb", first + 4)
    assert any(tag in data[first:second] for tag in (b"Xing", b"Info"))
    path.write_bytes(data[second:])
    return seconds, rate


def test_mp3_without_its_length_is_read_to_its_end(tmp_path):
    path = tmp_path / "x.mp3"
    seconds, rate = headerless_mp3(path)
    assert audio.is_mp3_without_length(path)
    waveform, found = audio.decode(path)
    assert found == rate
    assert waveform.size / rate == pytest.approx(seconds, abs=0.1)
    assert np.abs(waveform[-rate // 2 : -rate // 4]).max() > 0.3
    measured = audio.headers([path])
    assert measured.seconds[0] == pytest.approx(waveform.size / rate)


def test_mp3_with_its_length_is_read_as_before(tmp_path):
    soundfile.write(tmp_path / "x.mp3", noise(0, 1.0), RATE)
    assert not audio.is_mp3_without_length(tmp_path / "x.mp3")


def test_another_format_called_mp3_is_named_correctly(tmp_path):
    (tmp_path / "x.mp3").write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 500)
    with pytest.raises(audio.BadAudioError, match="is not readable audio") as raised:
        audio.decode(tmp_path / "x.mp3")
    assert "does not exist" not in str(raised.value)


def test_flac_of_unknown_length(tmp_path):
    """As an encoder writes it to a pipe: 36 bits of total samples are zero."""
    path = tmp_path / "x.flac"
    soundfile.write(path, noise(0, 1.5), RATE)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = b"\0\0\0\0"
    path.write_bytes(data)
    waveform, rate = audio.decode(path)
    assert (waveform.size, rate) == (12_000, RATE)
    np.testing.assert_allclose(waveform, noise(0, 1.5), atol=1e-4)
    assert audio.headers([path]).seconds[0] == pytest.approx(1.5)


def test_gsm_in_wav(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, noise(0, 1.0), RATE, subtype="GSM610")
    waveform, rate = audio.decode(path)
    assert rate == RATE
    assert waveform.size == pytest.approx(RATE, abs=400)


def test_half_a_wav_is_truncated(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, noise(0, 1.0), RATE)
    whole = path.read_bytes()
    assert audio.decode(path)[0].size == RATE
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(audio.BadAudioError, match="is truncated: its last 80"):
        audio.decode(path)


def test_a_wav_of_a_stream_is_whole(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, noise(0, 1.0), RATE)
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = b"\xff\xff\xff\xff"
    data[4:8] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert audio.decode(path)[0].size == RATE
