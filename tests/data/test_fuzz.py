"""Damaged files give a named error or a clip, and nothing else."""

import resource
import struct
import time

import numpy as np
import pytest
import soundfile

from audiodd_jax.data import audio

FILES = 2_000
FORMATS = (
    ("wav", "PCM_16", 1),
    ("wav", "PCM_24", 2),
    ("wav", "FLOAT", 1),
    ("wav", "IMA_ADPCM", 1),
    ("wav", "MS_ADPCM", 2),
    ("wav", "PCM_U8", 1),
    ("flac", "PCM_16", 2),
    ("ogg", "VORBIS", 1),
    ("ogg", "OPUS", 1),
    ("mp3", "MPEG_LAYER_III", 1),
    ("aiff", "PCM_16", 1),
)


def cut(data, rng):
    return data[: rng.integers(0, len(data))]


def flip_bits(data, rng):
    for _ in range(rng.integers(1, 30)):
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return data


def flip_header(data, rng):
    for _ in range(rng.integers(1, 8)):
        data[rng.integers(min(64, len(data)))] = rng.integers(256)
    return data


def wrong_header(data, rng):
    head = (b"RIFF\xff\xff\xff\xffWAVEfmt ", b"fLaC", b"OggS", b"ID3\x04", b"FORM", b"")
    return head[rng.integers(len(head))] + bytes(data[rng.integers(4, 60) :])


def zero_length(data, rng):
    return b""


def ten_hours(data, rng):
    """Sizes in a RIFF header that claim hours, or the largest possible numbers."""
    size = (36_000 * 16_000, 2**31 - 1, 2**32 - 1)[rng.integers(3)]
    for at in (4, 40):
        data[at : at + 4] = struct.pack("<I", size)
    return data


def absurd_numbers(data, rng):
    """Channels, rates and block sizes in the format chunk that no clip can have."""
    at, width = ((22, 2), (24, 4), (28, 4), (32, 2), (34, 2))[rng.integers(5)]
    data[at : at + width] = rng.bytes(width)
    return data


def not_numbers(data, rng):
    values = np.array([np.nan, np.inf, -np.inf, 1e38, 1e-40], np.float32)
    for _ in range(5):
        at = 44 + 4 * int(rng.integers((len(data) - 60) // 4))
        data[at : at + 4] = values[rng.integers(5)].tobytes()
    return data


def garbage(data, rng):
    return rng.bytes(rng.integers(1, 5000))


DAMAGES = (
    *(cut, flip_bits, flip_header, wrong_header, zero_length),
    *(ten_hours, absurd_numbers, not_numbers, garbage),
)


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory):
    """A short sound in every supported format."""
    folder = tmp_path_factory.mktemp("sounds")
    time_axis = np.arange(6000) / 16_000
    wave = 0.3 * np.sin(2 * np.pi * 440 * time_axis).astype(np.float32)
    found = []
    for suffix, subtype, channels in FORMATS:
        path = folder / f"{subtype}.{suffix}"
        samples = np.stack([wave] * channels, axis=1)
        soundfile.write(path, samples, 16_000, subtype=subtype)
        found.append((suffix, path.read_bytes()))
    return found


def test_2000_damaged_files(sound_files, tmp_path):
    rng = np.random.default_rng(20_261_122)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {"clip": 0, "named": 0}
    slowest = 0.0
    for number in range(FILES):
        damage = DAMAGES[number % len(DAMAGES)]
        suffix, data = sound_files[rng.integers(len(sound_files))]
        path = tmp_path / f"clip.{suffix}"
        path.write_bytes(damage(bytearray(data), rng))
        began = time.perf_counter()
        try:
            waveform = audio.resample(*audio.decode(path), 16_000)
            clip = audio.fit(waveform, 16_000, "center")
        except audio.BadAudioError as error:
            outcomes["named"] += str(path) in str(error)
        else:
            assert clip.shape == (16_000,)
            assert clip.dtype == np.float32
            assert np.isfinite(clip).all()
            outcomes["clip"] += 1
        slowest = max(slowest, time.perf_counter() - began)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert sum(outcomes.values()) == FILES
    assert min(outcomes.values()) > 200  # both happen, often
    assert slowest < 5.0
    assert grown < 1_000_000  # kB
