import numpy as np
import pytest
import soundfile

from audiodd_jax.data import audio
from audiodd_jax.data.audio import BadAudioError

RATE = 8000


def tone(seconds=0.5, rate=RATE, hertz=440.0):
    time = np.arange(int(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [
        ("wav", "PCM_16", 1e-4),
        ("wav", "PCM_24", 1e-6),
        ("wav", "PCM_U8", 1e-2),
        ("wav", "FLOAT", 0),
        ("wav", "IMA_ADPCM", 0.05),
        ("flac", "PCM_16", 1e-4),
        ("ogg", "VORBIS", 0.1),
        ("mp3", "MPEG_LAYER_III", 0.3),
    ],
)
def test_encodings(tmp_path, suffix, subtype, tolerance):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(), RATE, subtype=subtype)
    waveform, rate = audio.decode(path)
    assert rate == RATE
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    if suffix != "mp3":  # MP3 pads its ends
        # ADPCM needs a few samples to find its step.
        late = slice(50, tone().size)
        np.testing.assert_allclose(waveform[late], tone()[late], atol=tolerance)
    headers = audio.headers([path])
    assert headers.rates.tolist() == [RATE]
    assert headers.seconds[0] == pytest.approx(waveform.size / RATE)


def test_stereo_is_mixed(tmp_path):
    left, right = tone(), tone(hertz=1000)
    soundfile.write(tmp_path / "s.wav", np.stack([left, right], 1), RATE, "FLOAT")
    waveform, _ = audio.decode(tmp_path / "s.wav")
    np.testing.assert_allclose(waveform, (left + right) / 2, atol=1e-6)


def test_resampling_keeps_a_tone():
    same = audio.resample(tone(1.0, 44100), 44100, RATE)
    assert abs(same.size - RATE) <= 1
    np.testing.assert_allclose(
        same[500:-500], tone(1.0)[500 : same.size - 500], atol=0.01
    )


@pytest.mark.parametrize("align", ["start", "center", "repeat"])
@pytest.mark.parametrize("length", [1, 7, 10, 23])
def test_fit_returns_the_requested_length(align, length):
    wave = np.arange(1, length + 1, dtype=np.float32)
    fitted = audio.fit(wave, 10, align)
    assert fitted.shape == (10,)
    if length == 10:
        np.testing.assert_array_equal(fitted, wave)


def test_fit_by_hand():
    wave = np.array([1, 2, 3], np.float32)
    np.testing.assert_array_equal(audio.fit(wave, 5, "start"), [1, 2, 3, 0, 0])
    np.testing.assert_array_equal(audio.fit(wave, 5, "center"), [0, 1, 2, 3, 0])
    np.testing.assert_array_equal(audio.fit(wave, 5, "repeat"), [1, 2, 3, 1, 2])
    np.testing.assert_array_equal(audio.fit(wave, 1, "center"), [2])


def _wav(path, data=None, subtype="PCM_16"):
    soundfile.write(path, tone() if data is None else data, RATE, subtype=subtype)
    return path


def _missing(path):
    return path


def _empty(path):
    path.write_bytes(b"")
    return path


def _text(path):
    path.write_text("this is not a sound " * 50)
    return path


def _no_samples(path):
    return _wav(path, np.zeros(0, np.float32))


def _not_finite(path):
    return _wav(path, np.full(100, np.nan, np.float32), "FLOAT")


def _header_only(path):
    path.write_bytes(_wav(path).read_bytes()[:20])
    return path


def _flac_cut(path):
    flac = path.with_suffix(".flac")
    soundfile.write(flac, np.random.default_rng(0).uniform(-1, 1, 8000), RATE)
    flac.write_bytes(flac.read_bytes()[:3000])
    return flac


def _ten_hours(path):
    """A FLAC header that claims ten hours: total samples, 36 bits at byte 21."""
    flac = path.with_suffix(".flac")
    soundfile.write(flac, tone(), RATE)
    data = bytearray(flac.read_bytes())
    data[22:26] = (10 * 3600 * RATE).to_bytes(4, "big")
    flac.write_bytes(data)
    return flac


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_missing, "does not exist"),
        (_empty, "is an empty file"),
        (_text, "is not readable audio"),
        (_no_samples, "holds no samples"),
        (_not_finite, "not finite"),
        (_header_only, "is not readable audio|holds no samples"),
        (_flac_cut, "is not readable audio|is truncated"),
        (_ten_hours, "claims 36000 s"),
    ],
)
def test_damage_is_named(tmp_path, damage, words):
    path = damage(tmp_path / "clip.wav")
    with pytest.raises(BadAudioError, match=words) as raised:
        audio.decode(path)
    assert str(path) in str(raised.value)


def test_headers_are_in_order_and_name_unusable_files(tmp_path):
    paths = [_wav(tmp_path / f"{i}.wav", tone()[: 100 + i]) for i in range(30)]
    paths[7] = _text(tmp_path / "bad.wav")
    headers = audio.headers(paths)
    sizes = np.arange(100, 130)
    sizes[7] = 0
    np.testing.assert_allclose(headers.seconds, sizes / RATE)
    assert list(headers.bad) == [7]
    assert headers.rates[7] == 0


def _absurd_rate(path):
    data = bytearray(_wav(path).read_bytes())
    data[24:28] = (2_000_000_000).to_bytes(4, "little")
    path.write_bytes(data)
    return path


def _many_channels(path):
    """A FLAC header that claims eight channels for nearly ten minutes at 48 kHz."""
    flac = path.with_suffix(".flac")
    soundfile.write(flac, np.zeros((480, 8), np.float32), 48_000)
    data = bytearray(flac.read_bytes())
    data[22:26] = (590 * 48_000).to_bytes(4, "big")
    flac.write_bytes(data)
    return flac


def _beyond_any_level(path):
    return _wav(path, np.full(100, 1e30, np.float32), "FLOAT")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_absurd_rate, "claims a sample rate of 2000000000 Hz"),
        (_many_channels, "claims 28320000 samples of 8 channels"),
        (_beyond_any_level, "times full scale"),
    ],
)
def test_absurd_headers_allocate_nothing(tmp_path, damage, words):
    with pytest.raises(BadAudioError, match=words):
        audio.decode(damage(tmp_path / "clip.wav"))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "without length.mp3"])
def test_excerpt_is_the_same_as_in_the_whole_recording(tmp_path, suffix, channels):
    path = tmp_path / f"long.{suffix[-3:]}" if suffix != "flac" else tmp_path / "x.flac"
    sweep = np.sin(np.cumsum(np.linspace(0.1, 1.5, 10 * 44100)))
    soundfile.write(path, np.stack([0.3 * sweep] * channels, 1), 44100)
    if "without" in suffix:
        content = path.read_bytes()
        header = content.index(b"\xff\xfb")
        path.write_bytes(
            content[content.index(content[header : header + 2], header + 2) :]
        )
        assert audio.is_mp3_without_length(path)
    whole, rate = audio.decode(path)
    spans = [(0.0, 1.0), (2.34567, 3.5), (9.0, None), (0.5, whole.size / rate + 0.05)]
    found = audio.headers([path] * len(spans), spans)
    for i, (start, end) in enumerate(spans):
        excerpt, _ = audio.decode(path, start, end)
        first = round(start * rate)
        last = (
            whole.size if end is None or i == 3 else first + round((end - start) * rate)
        )
        # mpg123 begins anew at a seek: its rounding differs in the last bit.
        np.testing.assert_allclose(excerpt, whole[first:last], rtol=0, atol=1e-6)
        assert found.seconds[i] == pytest.approx(excerpt.size / rate, rel=1e-6)
    for start, end in ((11.0, None), (9.0, 10.5), (11.0, 12.0)):
        with pytest.raises(BadAudioError, match=r"ends at 10(\.\d+)? s, before 1\d"):
            audio.decode(path, start, end)
        assert list(audio.headers([path], [(start, end)]).bad) == [0]


def test_excerpt_of_a_recording_of_hours(tmp_path):
    path = tmp_path / "day.flac"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 100 * 700)
    soundfile.write(path, noise, 100)
    with pytest.raises(BadAudioError, match="claims 700 s, over 600 s"):
        audio.decode(path)
    with pytest.raises(BadAudioError, match=r"an excerpt of .* has 650 s, over 600 s"):
        audio.decode(path, 50.0)
    excerpt, _ = audio.decode(path, 690.0, 691.0)
    np.testing.assert_allclose(excerpt, noise[69000:69100], atol=1e-4)
    assert audio.length(path) == (100, 70000, 1)
    # FLAC of a pipe has no length: it is read from the beginning.
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert audio.length(path) == (100, 70000, 1)
    np.testing.assert_array_equal(audio.decode(path, 690.0, 691.0)[0], excerpt)
    assert audio.headers([path] * 2, [(690.0, 691.0), (0.0, None)]).seconds[0] == 1
    with pytest.raises(BadAudioError, match="ends at 700 s, before 701 s"):
        audio.decode(path, 699.0, 701.0)
