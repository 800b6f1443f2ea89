"""Segments of long recordings: tables of times, label files, overlaps, background."""

import dataclasses
import logging

import numpy as np
import pytest
import soundfile

from audiodd_jax.config import DataConfig, FeaturesConfig
from audiodd_jax.data import audio, columns, datasets, splits
from audiodd_jax.errors import UserError
from audiodd_jax.features import cache

RATE = 8000


def record(folder, name="day.wav", seconds=12, seed=0):
    """A recording whose every sample is different, and its samples."""
    samples = 0.1 * np.random.default_rng(seed).standard_normal(seconds * RATE)
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / name, samples, RATE, "FLOAT")
    return samples.astype(np.float32)


def source(place, **settings):
    config = DataConfig(name="folder", data_dir=str(place), **settings)
    return datasets.open_source(config)


def write(path, *lines):
    path.write_text("\n".join([*lines, ""]))
    return path


def labels(found):
    return [found.class_names[label] for label in found.labels]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("path,start,end,label", "day.wav,2.5,3.75,dog"),
        ("filename,onset,offset,label", "day.wav,2.5,3.75,dog"),
        ("path,start_s,end [sec],label", "day.wav,2.5,3.75,dog"),
        ("path,Start (s),End (s),label", "day.wav,2.5,3.75,dog"),
        ("path,label,start,duration", "day.wav,dog,2.5,1.25"),
        ("path,label,offset,duration", "day.wav,dog,2.5,1.25"),
        ("path\tlabel\tBegin Time (s)\tEnd Time (s)", "day.wav\tdog\t2.5\t3.75"),
        ("path;label;start_time;end_time;duration", "day.wav;dog;2.5;3.75;12"),
    ],
)
def test_columns_of_times(tmp_path, header, row):
    samples = record(tmp_path)
    other = row.replace("dog", "cat").replace("2.5", "6").replace("3.75", "7.25")
    table = write(tmp_path / "t.csv", header, row, other)
    found = source(table).read()
    assert found.names == ("day.wav@2.5-3.75", "day.wav@6-7.25")
    assert labels(found) == ["dog", "cat"]
    assert found.groups.tolist() == ["day.wav"] * 2
    waveform, rate = found.load(0)
    np.testing.assert_array_equal(waveform, samples[20000:30000])
    headers = found.read_headers()
    assert headers.seconds.tolist() == [1.25, 1.25]
    assert headers.rates.tolist() == [rate, rate]
    assert not headers.bad


def test_a_duration_alone_is_no_segment(tmp_path):
    record(tmp_path), record(tmp_path, "b.wav", seed=1)
    table = write(tmp_path / "t.csv", "path,label,duration", "day.wav,x,3", "b.wav,y,3")
    found = source(table).read()
    assert found.names == ("day.wav", "b.wav")
    assert found.load(0)[0].size == 12 * RATE


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ("3,2", r"t\.csv, line 3: the end 2 s is before the start 3 s"),
        ("3,3", r"t\.csv, line 3: the label at 3 s is a point"),
        ("nan,3", r"t\.csv, line 3: the start is a number of seconds, not 'nan'"),
        ("-1,3", r"t\.csv, line 3: the start is a number of seconds, not '-1'"),
        ("0:01,3", r"t\.csv, line 3: the start is a number of seconds"),
        ("1,", r"t\.csv, line 3: a segment has a start, and an end or a duration"),
        (",3", r"t\.csv, line 3: a segment has a start, and an end or a duration"),
    ],
)
def test_bad_times_are_named(tmp_path, times, words):
    record(tmp_path)
    rows = ("path,start,end,label", "day.wav,1,2,dog", f"day.wav,{times},cat")
    with pytest.raises(UserError, match=words):
        source(write(tmp_path / "t.csv", *rows))


def test_times_beyond_the_recording_are_named(tmp_path):
    record(tmp_path)
    rows = ("day.wav,1,2,dog", "day.wav,10.95,12.05,cat", "day.wav,12.1,13,dog")
    table = write(tmp_path / "t.csv", "path,start,end,label", *rows)
    headers = source(table).read().read_headers()
    assert list(headers.bad) == [2]  # programs round: 0.05 s late is the end
    words = r"t\.csv, line 4: .*day\.wav ends at 12 s, before 13 s"
    config = DataConfig(
        name="folder", data_dir=str(table), cache_dir=str(tmp_path / "cache")
    )
    with pytest.raises(UserError, match=words):
        cache.prepare(config, FeaturesConfig())
    skipped = dataclasses.replace(config, skip_bad_files=True)
    prepared = cache.prepare(skipped, FeaturesConfig())
    assert prepared.seconds.tolist() == pytest.approx([1.0, 1.05])


def test_a_random_split_does_not_divide_a_recording(tmp_path):
    rows = []
    for i in range(10):
        record(tmp_path, f"{i}.wav", seed=i)
        rows += [f"{i}.wav,{t},{t + 1},{'xy'[t % 2]}" for t in range(0, 10, 2)]
        rows += [f"{i}.wav,{t},{t + 1},{'xy'[t % 2]}" for t in range(1, 10, 2)]
    found = source(write(tmp_path / "t.csv", "path,start,end,label", *rows)).read()
    assert len(found) == 100
    given = (found.labels, found.splits, found.folds, found.groups)
    parts = splits.assign(*given, DataConfig())
    sides = [set(found.groups[part]) for part in parts]
    assert sum(map(len, sides)) == 10
    assert len(parts.test) == 20


def test_a_column_of_groups_and_copies_of_a_recording(tmp_path):
    for name, seed in (("a.wav", 0), ("copy.wav", 0), ("b.wav", 1)):
        record(tmp_path, name, seed=seed)
    rows = ("a.wav,0,1,x,", "copy.wav,4,5,y,", "b.wav,0,1,x,anna", "b.wav,2,3,y,ben")
    found = source(
        write(tmp_path / "t.csv", "path,start,end,label,group", *rows)
    ).read()
    a, copy, *others = found.groups.tolist()
    assert a == copy
    assert others == ["anna", "ben"]


def test_one_recording_cannot_be_split(tmp_path):
    record(tmp_path)
    rows = [f"day.wav,{t},{t + 1},{'xy'[t % 2]}" for t in range(10)]
    found = source(write(tmp_path / "t.csv", "path,start,end,label", *rows)).read()
    given = (found.labels, found.splits, found.folds, found.groups)
    with pytest.raises(UserError, match="the segments of a recording together"):
        splits.assign(*given, DataConfig())


def test_rows_that_repeat_a_segment(tmp_path, caplog):
    record(tmp_path)
    rows = ("day.wav,1,2,x", "day.wav,1,2,x", "day.wav,3,4,y")
    table = write(tmp_path / "t.csv", "path,start,end,label", *rows)
    with caplog.at_level(logging.WARNING):
        assert len(source(table).read()) == 2
    assert "1 row repeats" in caplog.text


def test_overlaps_are_refused_or_tags(tmp_path):
    record(tmp_path)
    rows = ("day.wav,1,3,dog", "day.wav,2,4,siren", "day.wav,4,5,dog", "day.wav,1,3,x")
    table = write(tmp_path / "t.csv", "path,start,end,label", *rows[:3])
    words = (
        r"line 3: this segment \(siren\) overlaps that of .*line 2 \(dog\); "
        r"--config\.data\.tags=overlapping"
    )
    with pytest.raises(UserError, match=words):
        source(table)
    write(table, "path,start,end,label", *rows)
    opened = source(table, tags="overlapping")
    found = opened.read()
    assert opened.has_tags
    assert found.class_names == ("dog", "siren", "x")
    assert found.names == ("day.wav@1-3", "day.wav@2-4", "day.wav@4-5")
    assert found.labels.tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0]]


def test_a_label_track_of_audacity(tmp_path, caplog):
    samples = record(tmp_path)
    record(tmp_path, "unlabelled.wav", seed=1)
    write(
        tmp_path / "day.txt", "1.500000\t2.500000\tdog", "\\\t100.0\t900.0", "3\t4\tø"
    )
    with caplog.at_level(logging.INFO):
        found = source(tmp_path).read()
    assert labels(found) == ["dog", "ø"]
    assert found.left_out == (
        ("recording without a file of labels", 1, "unlabelled.wav"),
    )
    np.testing.assert_array_equal(found.load(0)[0], samples[12000:20000])
    assert "frequency are not used" in caplog.text
    write(tmp_path / "day.txt", "1.5\t1.5\tdog", "3\t4\tcat")
    with pytest.raises(
        UserError, match=r"day\.txt, line 1: the label at 1\.5 s is a po"
    ):
        source(tmp_path)
    write(tmp_path / "day.txt", "1.5\t2.5\tdog", "3\t4\t")
    with pytest.raises(UserError, match=r"day\.txt, line 2 lacks its label"):
        source(tmp_path)
    write(tmp_path / "day.txt", "1.5\t2.5\tdog", "3 4 cat")
    with pytest.raises(UserError, match=r"day\.txt, line 2: .* after tabs"):
        source(tmp_path)


def test_selection_tables_of_raven_in_folders_of_splits(tmp_path, caplog):
    header = "Selection\tView\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tAnnotation"
    for i, split in enumerate(("train", "test")):
        record(tmp_path / split, seed=i)
        write(
            tmp_path / split / "day.Table.1.selections.txt",
            header,
            f"1\tSpectrogram 1\t{i}.5\t2.0\t100\twren",
            f"1\tWaveform 1\t{i}.5\t2.0\t100\twren",
            "2\tSpectrogram 1\t3\t4\t100\trobin",
        )
    with caplog.at_level(logging.INFO):
        found = source(tmp_path).read()
    assert sorted(
        zip(found.names, found.splits.tolist(), labels(found), strict=True)
    ) == [
        ("test/day.wav@1.5-2", "test", "wren"),
        ("test/day.wav@3-4", "test", "robin"),
        ("train/day.wav@0.5-2", "train", "wren"),
        ("train/day.wav@3-4", "train", "robin"),
    ]
    assert "frequency are not used" in caplog.text


def test_texts_next_to_sounds_may_be_transcripts(tmp_path):
    for i, name in enumerate("xy"):
        record(tmp_path / name, seed=i)
        write(tmp_path / name / "day.txt", "0 46797 She had your dark suit")
    assert source(tmp_path).read().names == ("x/day.wav", "y/day.wav")


def test_background(tmp_path):
    for i in range(3):
        record(tmp_path, f"{i}.wav", seed=i)
        write(tmp_path / f"{i}.txt", "1.0\t2.0\tx", "5\t6\ty", "6\t7.5\tx")
    opened = source(tmp_path, background=1.0)
    found = opened.read()
    names = [n for n, label in zip(found.names, labels(found), strict=True)
             if label == "background"]  # fmt: skip
    assert len(names) == 6
    for name in names:
        file, times = name.split("@")
        start, end = map(float, times.split("-"))
        assert end - start == 1
        assert any(a <= start and end <= b for a, b in ((0, 1), (2, 5), (7.5, 12)))
        assert found.groups[found.names.index(name)] == file
    assert found.names == source(tmp_path, background=1.0).read().names
    other = source(tmp_path, background=2.0)
    assert len({x.fingerprint for x in (opened, other, source(tmp_path))}) == 3
    with pytest.raises(UserError, match="no stretch of 6 s is free of segments"):
        source(tmp_path, background=6.0).read()


def test_settings_of_segments_need_segments(tmp_path):
    record(tmp_path / "x"), record(tmp_path / "y", seed=1)
    for settings in ({"tags": "overlapping"}, {"background": 1.0}):
        with pytest.raises(UserError, match="need segments"):
            source(tmp_path, **settings)
        with pytest.raises(UserError, match="tones has none"):
            datasets.open_source(DataConfig(name="tones", **settings))


def test_times_and_label_files_are_in_the_fingerprint(tmp_path):
    record(tmp_path)
    write(tmp_path / "day.txt", "1\t2\tx", "5\t6\ty")
    before = source(tmp_path).fingerprint
    write(tmp_path / "day.txt", "1\t2\tx", "5\t6.5\ty")
    assert source(tmp_path).fingerprint != before


def test_only_the_segment_is_decoded(tmp_path, monkeypatch):
    record(tmp_path)
    read = []
    whole = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile,
        "read",
        lambda self, frames=-1, **how: (
            read.append(frames) or whole(self, frames, **how)
        ),
    )
    assert audio.decode(tmp_path / "day.wav", 2.0, 2.5)[0].size == 4000
    assert read == [4000]


def test_offset_is_the_start_only_next_to_a_duration(tmp_path):
    found = lambda *names: columns.columns_of(tmp_path, names)
    assert found("offset", "duration") == {"start": "offset", "duration": "duration"}
    assert found("onset", "offset", "duration")["end"] == "offset"


def test_times_in_other_units_are_said_not_to_be_used(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert columns.columns_of(tmp_path, ["start_ms", "End (samples)"]) == {}
    assert "start_ms is not used; times are in seconds" in caplog.text
    assert "End (samples) is not used" in caplog.text
