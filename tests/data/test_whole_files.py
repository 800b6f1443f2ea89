"""Truncated files are named, joined files are read whole, and suffixes do not count."""

import io
import logging

import numpy as np
import pytest
import soundfile

from audiodd_jax.data import audio
from audiodd_jax.errors import UserError

RATE = 16_000
FORMATS = [
    *(("WAV", "PCM_16"), ("WAVEX", "FLOAT"), ("W64", "PCM_16"), ("RF64", "PCM_24")),
    *(("AIFF", "PCM_16"), ("CAF", "PCM_16"), ("AU", "PCM_16"), ("NIST", "PCM_16")),
    *(("SVX", "PCM_16"), ("WAV", "GSM610"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")),
    *(("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")),
]
# Formats of which only truncation is noticed.
OTHERS = [
    *(("AVR", "PCM_16"), ("MAT4", "PCM_16"), ("MAT5", "PCM_16"), ("MPC2K", "PCM_16")),
    *(("VOC", "PCM_16"), ("WVE", "ALAW"), ("NIST", "ULAW"), ("CAF", "ALAC_16")),
]


def sound(seconds, seed=0):
    samples = np.random.default_rng(seed).standard_normal(int(RATE * seconds))
    return (0.1 * samples).astype(np.float32)


def encoded(format, subtype=None, samples=None, rate=RATE, **settings):
    file = io.BytesIO()
    samples = sound(4) if samples is None else samples
    soundfile.write(file, samples, rate, subtype, format=format, **settings)
    return file.getvalue()


def written(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("format", "subtype"), [*FORMATS, *OTHERS])
def test_truncated_files_are_named(tmp_path, format, subtype):
    data = encoded(format, subtype)
    assert audio.decode(written(tmp_path / "x.wav", data))[0].size == 4 * RATE
    for size in (len(data) // 2, len(data) * 9 // 10, len(data) - 100):
        path = written(tmp_path / f"{size}.wav", data[:size])
        with pytest.raises(audio.BadAudioError, match="is truncated"):
            audio.decode(path)


@pytest.mark.parametrize(("format", "subtype"), FORMATS)
def test_joined_files_are_whole(tmp_path, format, subtype):
    parts = [encoded(format, subtype, sound(1, seed)) for seed in range(3)]
    names = [written(tmp_path / f"{i}.bin", part) for i, part in enumerate(parts)]
    path = written(tmp_path / "x.mp3", b"".join(parts))
    waveform, rate = audio.decode(path)
    expected = np.concatenate([audio.decode(name)[0] for name in names])
    np.testing.assert_allclose(waveform, expected, atol=1e-6)
    assert rate == RATE
    assert audio.headers([path]).seconds[0] == pytest.approx(3)


@pytest.mark.parametrize("format", ["WAV", "W64", "RF64", "AIFF", "CAF", "AU", "NIST"])
@pytest.mark.parametrize(
    "between", [b"", bytes(1), bytes(500), b"ID3\4\0\0\0\0\0\5abcde"]
)
def test_bytes_after_the_stated_end_are_no_joined_file(tmp_path, format, between):
    data = encoded(format)
    for more in (b"", b"LIST\4\0\0\0INFO", b"TAG" + bytes(125)):
        path = written(tmp_path / "x.wav", data + between + more)
        np.testing.assert_allclose(audio.decode(path)[0][:64000], sound(4), atol=1e-4)
    waveform, _ = audio.decode(written(path, data + between + data))
    assert waveform.size in (8 * RATE, 8 * RATE + len(between) // 2)
    np.testing.assert_allclose(waveform[-64000:], sound(4), atol=1e-4)


@pytest.mark.parametrize("format", ["WAV", "RF64", "AU"])
def test_joined_streams_that_leave_their_size_open_are_whole(tmp_path, format):
    data = bytearray(encoded(format))
    size = {"WAV": 4, "RF64": 20, "AU": 8}[format]
    data[size : size + 4] = b"\xff" * 4
    waveform, _ = audio.decode(written(tmp_path / "x.wav", data + data))
    np.testing.assert_allclose(waveform, np.tile(sound(4), 2), atol=1e-4)


@pytest.mark.parametrize("format", ["OGG", "MP3", "FLAC", "WAV", "CAF"])
def test_joined_files_of_different_kinds_are_refused(tmp_path, format):
    other = encoded(format, samples=sound(1), rate=8000)
    path = written(tmp_path / "x.ogg", encoded(format) + other)
    with pytest.raises(audio.BadAudioError, match=r"16000 Hz.*8000 Hz") as raised:
        audio.decode(path)
    assert str(path) in str(raised.value)
    stereo = encoded(format, samples=np.stack([sound(1)] * 2, 1))
    with pytest.raises(audio.BadAudioError, match=r"1 channels.*2 channels"):
        audio.decode(written(tmp_path / "y.ogg", encoded(format) + stereo))


def without_length(data):
    """An MP3 without its first frame, which states the number of frames."""
    first = data.index(b"\xff\xf3")
    return data[data.index(b"\xff\xf3", first + 4) :]


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_a_cut_frame_ends_a_truncated_mp3_without_a_length(tmp_path, rate, mode):
    data = encoded("MP3", samples=sound(2), rate=rate, bitrate_mode=mode)
    frame = data[data.index(b"\xff") :][:2]
    data = data[data.index(frame, data.index(frame) + 4) :]
    for tags in (b"", b"TAG" + bytes(125), b"APETAGEX" + bytes(99), bytes(500)):
        waveform, _ = audio.decode(written(tmp_path / "x.mp3", data + tags))
        assert waveform.size > 2 * RATE
    last = data.rindex(frame)
    for size in (len(data) - 5, last + 5, data.rindex(frame, 0, last) + 40):
        with pytest.raises(audio.BadAudioError, match="is truncated"):
            audio.decode(written(tmp_path / "x.mp3", data[:size]))
    # At the end of a frame, nothing shows that more should follow.
    assert audio.decode(written(tmp_path / "x.mp3", data[:last]))[0].size > RATE


def test_a_truncated_part_of_joined_files_is_named(tmp_path):
    for format in ("OGG", "MP3", "WAV", "CAF", "NIST", "AIFF", "FLAC"):
        data = encoded(format)
        half = data[: len(data) // 2]
        joined = half + data if format in ("OGG", "MP3") else data + half
        path = written(tmp_path / "x.ogg", joined)
        with pytest.raises(audio.BadAudioError, match="is truncated"):
            audio.decode(path)


@pytest.mark.parametrize(
    "tags", [b"", b"TAG" + bytes(125), b"ID3\4\0\0\0\0\2\0" + bytes(256)]
)
def test_joined_mp3_with_tags_and_without_lengths(tmp_path, tags):
    stated, other = encoded("MP3", samples=sound(2)), encoded("MP3", samples=sound(1))
    stream = without_length(other)
    for data, seconds in (
        (stated + tags + stream, 3),
        (stream + tags + stream, 2),
        (stream + tags + stated, 3),
    ):
        waveform, _ = audio.decode(written(tmp_path / "x.wav", data))
        assert waveform.size / RATE == pytest.approx(seconds, abs=0.2)
        tail = waveform[-RATE // 2 : -RATE // 4]
        assert np.abs(tail).mean() > 0.03


def test_an_mp3_that_begins_within_a_frame_is_read_to_its_end(tmp_path):
    quiet = np.concatenate([sound(2), 0.01 * sound(4, 1)])
    data = encoded("MP3", samples=quiet, bitrate_mode="VARIABLE", compression_level=0.2)
    for first in (10, 500):
        waveform, _ = audio.decode(written(tmp_path / "x.mp3", data[first:]))
        assert waveform.size / RATE == pytest.approx(6, abs=0.2)


def test_the_suffix_does_not_count(tmp_path):
    quiet = np.concatenate([sound(2), np.zeros(4 * RATE, np.float32)])
    data = without_length(
        encoded("MP3", samples=quiet, bitrate_mode="VARIABLE", compression_level=0.2)
    )
    for suffix in ("mp3", "wav", "flac", "m4a"):
        waveform, _ = audio.decode(written(tmp_path / f"x.{suffix}", data))
        assert waveform.size / RATE == pytest.approx(6, abs=0.2)
    for suffix in ("mp3", "raw", "RAW", "flac", "txt"):
        path = written(tmp_path / f"y.{suffix}", encoded("WAV"))
        np.testing.assert_allclose(audio.decode(path)[0], sound(4), atol=1e-4)
    with pytest.raises(audio.BadAudioError, match="is not readable audio"):
        audio.decode(written(tmp_path / "y.raw", bytes(1000)))


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_opposite_channels_do_not_cancel(tmp_path, subtype, caplog):
    x, noise = sound(1), 1e-4 * sound(1, 1)
    for name, second in (("a", -x), ("b", noise - x), ("c", 0.97 * -x), ("d", 0 * x)):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, np.stack([x, second], 1), RATE, subtype)
        expected = (x + second) / 2 if name == "d" else x
        np.testing.assert_allclose(audio.decode(path)[0], expected, atol=1e-4)
    with caplog.at_level(logging.WARNING):
        audio.report_opposite()
        audio.report_opposite()
    assert len(caplog.records) == 1
    assert all(name in caplog.text for name in ("a.wav", "b.wav", "c.wav"))
    assert "d.wav" not in caplog.text


def test_silence_and_different_channels_are_averaged(tmp_path):
    channels = np.stack([sound(1), sound(1, 1)], 1)
    for name, samples in (("a", 0 * channels), ("b", channels)):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, samples, RATE, "FLOAT")
        mean = samples.mean(1)
        np.testing.assert_allclose(audio.decode(path)[0], mean, atol=1e-6)


FFMPEG = """#!/bin/sh
for name in "$@"; do case "$name" in /*) file="$name";; esac; done
test "$(head -c 4 /dev/stdin)" = "" || exit 9
case "$file" in
*damaged*) echo "$file: Invalid data found" >&2; exit 1;;
*half*) head -c 9000 "$file.wav"; echo "$file: partial file" >&2;;
*) cat "$file.wav";;
esac
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A program called ``ffmpeg`` that writes the WAV file next to its input."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ffmpeg"
    program.write_text(FFMPEG)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


PHONES = [
    (b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42", "M4A"),
    (b"\x1aE\xdf\xa3" + bytes(30), "WebM"),
    (b"#!AMR\n" + bytes(30), "AMR"),
    (b"0&\xb2u\x8ef\xcf\x11" + bytes(30), "WMA"),
    (b"\xff\xf1P\x80" + bytes(30), "AAC"),
]


def voice(path, head):
    """A recording of a phone, and the WAV stream that the stand-in writes for it."""
    data = bytearray(encoded("WAV", "FLOAT", sound(2)))
    for place in (4, data.index(b"data") + 4):
        data[place : place + 4] = b"\xff\xff\xff\xff"
    path.with_name(path.name + ".wav").write_bytes(data)
    return written(path, head)


@pytest.mark.parametrize(("head", "name"), PHONES)
def test_formats_of_phones(tmp_path, stand_in, head, name):
    path = voice(tmp_path / "-voice: 1.m4a", head)
    waveform, rate = audio.decode(path)
    np.testing.assert_array_equal(waveform, sound(2))
    assert rate == RATE
    assert audio.headers([path]).seconds[0] == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [("damaged", "Invalid data found"), ("half", "partial file")],
)
def test_what_ffmpeg_reports_is_said(tmp_path, stand_in, name, words):
    path = voice(tmp_path / f"{name}.m4a", PHONES[0][0])
    with pytest.raises(audio.BadAudioError, match=words) as raised:
        audio.decode(path)
    assert str(path) in str(raised.value)


def test_long_recordings_of_phones_are_refused(tmp_path, stand_in, monkeypatch):
    monkeypatch.setattr(audio, "MAX_SECONDS", 1.0)
    with pytest.raises(audio.BadAudioError, match=r"2 s.*over 1"):
        audio.decode(voice(tmp_path / "x.amr", PHONES[2][0]))


@pytest.mark.parametrize(("head", "name"), PHONES)
def test_without_ffmpeg_the_message_says_how_once(tmp_path, monkeypatch, head, name):
    monkeypatch.setenv("PATH", str(tmp_path))
    bad = audio.headers([written(tmp_path / f"{i}.m4a", head) for i in range(4)]).bad
    with pytest.raises(UserError, match=f"3.m4a is .*{name}") as raised:
        audio.report_bad(list(bad.values()), skip=False)
    assert str(raised.value).count("ffmpeg -i voice.m4a voice.wav") == 1
    assert str(raised.value).count("install") == 1
