import io

import checks
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from audiodd_jax.config import presets
from audiodd_jax.data import audio, decoders, splits
from audiodd_jax.errors import UserError
from audiodd_jax.features import cache, dataset, logmel

SMALL = {
    "features__n_mels": 8,
    "features__frames": 16,
    "features__sample_rate": 8000,
    "features__clip_seconds": 0.5,
}


def settings(folder, **changes):
    return presets.for_dataset(
        "folder", **{"data__data_dir": str(folder), **SMALL, **changes}
    )


@pytest.fixture
def computations(monkeypatch):
    """Counts how often features were computed."""
    calls = []
    real = cache._compute
    monkeypatch.setattr(
        cache, "_compute", lambda *args: (calls.append(args), real(*args))
    )
    return calls


def test_values_are_those_of_each_file(sound_folder, tmp_path):
    config = settings(sound_folder)
    found = checks.prepare(config, tmp_path / "cache")
    assert found.features.shape == (24, 8, 16)
    assert found.features.dtype == np.float16
    assert found.class_names == ("high", "low")
    size = logmel.frontend(found.config)
    for i in (0, 13):
        path = sound_folder / found.names[i]
        wave = audio.resample(*audio.decode(path), 8000)
        wave = audio.fit(wave, size.samples, found.config.align)
        expected = logmel.compute(wave[None], found.config)[0]
        np.testing.assert_allclose(found.features[i], expected, atol=0.05)
        assert found.seconds[i] == pytest.approx(soundfile.info(path).duration)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([1.0] * 40, 1.0),
        ([1.0] * 98 + [3.0] * 2, 1.0),
        (list(np.arange(1, 101) / 10), 9.505),  # the 95th percentile
        ([1.0] * 40 + [480.0] * 4, 8.0),
        ([0.5] * 20 + [2.0] * 21 + [500.0] * 19, 16.0),
    ],
)
def test_automatic_clips_follow_most_clips(lengths, expected, caplog):
    seconds = np.array(lengths, np.float32)
    assert cache._length(seconds) == pytest.approx(expected)
    longer = int((seconds > expected + 1e-3).sum())
    is_far = max(lengths) > 2 * expected
    assert (f"{longer} of {len(lengths)} clips are longer" in caplog.text) == is_far


def test_a_second_call_reads_what_the_first_wrote(sound_folder, tmp_path, computations):
    first = checks.prepare(settings(sound_folder), tmp_path / "cache")
    second = checks.prepare(settings(sound_folder), tmp_path / "cache")
    assert len(computations) == 1
    np.testing.assert_array_equal(first.features, second.features)
    assert isinstance(second.features, np.memmap)


@pytest.mark.parametrize(
    "change",
    [
        {"features__n_mels": 9},
        {"features__top_db": 50.0},
        {"features__mel_scale": "htk"},
        {"features__align": "repeat"},
        {"features__clip_seconds": 0.4},
        {"data__skip_bad_files": True},
    ],
)
def test_every_setting_is_in_the_key(sound_folder, tmp_path, computations, change):
    checks.prepare(settings(sound_folder), tmp_path / "cache")
    checks.prepare(settings(sound_folder, **change), tmp_path / "cache")
    assert len(computations) == 2


def test_a_changed_added_or_removed_file_is_noticed(
    sound_folder, tmp_path, computations
):
    place = tmp_path / "cache"
    checks.prepare(settings(sound_folder), place)
    wave = np.zeros(4000, np.float32)
    soundfile.write(sound_folder / "low" / "00.wav", wave, 8000)
    changed = checks.prepare(settings(sound_folder), place)
    row = list(changed.names).index("low/00.wav")
    assert (changed.features[row] == -80).all()
    soundfile.write(sound_folder / "low" / "new.wav", wave, 8000)
    assert len(checks.prepare(settings(sound_folder), place).labels) == 25
    (sound_folder / "low" / "new.wav").unlink()
    assert len(checks.prepare(settings(sound_folder), place).labels) == 24
    # The last equals the second and is read from the cache.
    assert len(computations) == 3


def test_an_interrupted_computation_leaves_nothing(sound_folder, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logmel, "compute", fail)
    with pytest.raises(OSError, match="No space"):
        checks.prepare(settings(sound_folder), tmp_path / "cache")
    assert not list((tmp_path / "cache" / "features").iterdir())


def test_automatic_settings_are_resolved_from_the_data(sound_folder, tmp_path):
    config = settings(sound_folder, features__sample_rate=0, features__clip_seconds=0.0)
    found = checks.prepare(config, tmp_path / "cache")
    assert found.config.sample_rate == 8000
    expected = np.percentile(found.seconds, 95)
    assert found.config.clip_seconds == pytest.approx(expected, abs=1e-3)


def test_bad_files_are_named_and_refused_or_skipped(sound_folder, tmp_path):
    (sound_folder / "low" / "03.wav").write_bytes(b"not a sound")
    (sound_folder / "high" / "05.wav").write_bytes(b"")
    place = tmp_path / "cache"
    with pytest.raises(UserError) as refused:
        checks.prepare(settings(sound_folder), place)
    for words in ("2 recordings", "low/03.wav", "high/05.wav is an empty file"):
        assert words in str(refused.value)
    found = checks.prepare(settings(sound_folder, data__skip_bad_files=True), place)
    assert len(found.labels) == found.features.shape[0] == 22
    assert len(found.skipped) == 2
    assert "low/03.wav" not in found.names


def test_recordings_that_needed_ffmpeg_are_read_once_it_is_there(
    sound_folder, tmp_path, monkeypatch
):
    voice = sound_folder / "low" / "03.m4a"
    waveform, rate = audio.decode(sound_folder / "low" / "03.wav")
    (sound_folder / "low" / "03.wav").unlink()
    voice.write_bytes(b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42")
    config = settings(sound_folder, data__skip_bad_files=True)
    monkeypatch.setattr(decoders, "ffmpeg", lambda: None)
    before = checks.prepare(config, tmp_path)
    assert before.skipped[0].startswith(f"{voice} is not readable audio without FFmpeg")
    monkeypatch.setattr(decoders, "ffmpeg", lambda: "ffmpeg")
    raw = waveform.astype(np.float32).tobytes()
    kind = {"format": "RAW", "subtype": "FLOAT", "endian": "CPU"}
    opened = lambda _: soundfile.SoundFile(io.BytesIO(raw), "r", rate, 1, **kind)
    monkeypatch.setattr(decoders, "_by_ffmpeg", opened)
    after = checks.prepare(config, tmp_path)
    assert (len(before.labels), len(after.labels), after.skipped) == (23, 24, ())
    assert checks.prepare(config, tmp_path).path == after.path != before.path


def test_a_class_whose_every_file_is_bad_is_named(sound_folder, tmp_path):
    for file in (sound_folder / "low").iterdir():
        file.write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="'low' has no usable recording"):
        checks.prepare(
            settings(sound_folder, data__skip_bad_files=True), tmp_path / "cache"
        )


def test_statistics_come_from_the_training_clips_alone(sound_folder, tmp_path):
    config = settings(sound_folder)
    before = checks.load(config, tmp_path / "cache")
    found = checks.prepare(config, tmp_path / "cache")
    features = np.array(found.features)
    indices = splits.assign(
        found.labels, found.splits, found.folds, found.groups, config.data
    )
    features[indices.test] += 7
    features[indices.validation] -= 7
    np.save(found.path / "features.npy", features)
    after = checks.load(config, tmp_path / "cache")
    assert float(jnp.abs(after.test.images - before.test.images).min()) > 0.1
    np.testing.assert_array_equal(before.normalization.mean, after.normalization.mean)
    np.testing.assert_array_equal(before.train.images, after.train.images)


def test_given_statistics_are_used(sound_folder, tmp_path):
    config = settings(sound_folder)
    data = checks.load(config, tmp_path / "cache")
    twice = data.normalization._replace(std=2 * data.normalization.std)
    other = checks.load(config, tmp_path / "cache", twice)
    np.testing.assert_allclose(2 * other.test.images, data.test.images, rtol=1e-5)
    assert isinstance(data.train.images, jax.Array)


def test_training_features_that_do_not_fit_stay_on_the_host(
    sound_folder, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", logger="audiodd_jax")
    load = lambda storage: checks.load(
        settings(sound_folder, data__storage=storage), tmp_path / "cache"
    )
    assert not load("auto").train.is_on_host
    assert load("host").train.is_on_host

    class Little:
        available = 1000

    monkeypatch.setattr(dataset.psutil, "virtual_memory", lambda: Little)
    assert "are streamed" not in caplog.text
    host, device = load("auto"), load("device")
    assert "are streamed" in caplog.text
    assert host.train.is_on_host
    assert not device.train.is_on_host
    rows = np.arange(host.train.labels.size)
    np.testing.assert_array_equal(host.train.take(rows), device.train.images)
    np.testing.assert_array_equal(host.train.labels, device.train.labels)
    assert host.num_train == device.num_train
    assert host.image_shape == device.image_shape == (8, 16)


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _no_json(path):
    path.write_text("{")


def _other_size(path):
    np.save(path, np.zeros((3, 8, 16), np.float16))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("features.npy", _cut),
        ("features.npy", _other_size),
        ("features.npy", lambda path: path.unlink()),
        ("index.npz", _cut),
        ("moments.npy", _cut),
        ("meta.json", _no_json),
    ],
)
def test_a_damaged_entry_is_named(sound_folder, tmp_path, name, damage):
    entry = checks.prepare(settings(sound_folder), tmp_path).path
    damage(entry / name)
    with pytest.raises(UserError, match=r"are damaged .*; delete this folder") as told:
        checks.prepare(settings(sound_folder), tmp_path)
    assert str(entry) in str(told.value)
