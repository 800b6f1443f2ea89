import os
import pickle
import signal
import threading
import time

import checks
import numpy as np
import psutil
import pytest
import soundfile

from audiodd_jax.config import presets
from audiodd_jax.errors import UserError
from audiodd_jax.features import cache, extraction, logmel


def settings(folder, **changes):
    small = {
        "features__n_mels": 8,
        "features__frames": 16,
        "features__sample_rate": 4000,
        "features__clip_seconds": 0.5,
        "data__data_dir": str(folder),
    }
    return presets.for_dataset("folder", **{**small, **changes})


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_write_the_same_features_as_one(
    sound_folder, tmp_path, processes, monkeypatch
):
    real, jobs = extraction._start, []
    monkeypatch.setattr(extraction, "_start", lambda job: jobs.append(job) or real(job))
    (sound_folder / "low" / "03.wav").write_bytes(b"RIFF" + bytes(40))
    of = lambda number: settings(
        sound_folder, data__processes=number, data__skip_bad_files=True
    )
    one = checks.prepare(of(1), tmp_path / "1")
    several = checks.prepare(of(processes), tmp_path / "several")
    assert len(jobs) == processes
    np.testing.assert_array_equal(one.features, several.features)
    np.testing.assert_array_equal(one.names, several.names)
    np.testing.assert_array_equal(one.moments, several.moments)
    assert one.skipped == several.skipped
    assert len(several.labels) == 23


def test_every_process_has_a_share(sound_folder, tmp_path, monkeypatch):
    real, jobs = extraction._start, []
    monkeypatch.setattr(extraction, "_start", lambda job: jobs.append(job) or real(job))
    monkeypatch.setattr(extraction, "chunk_size", lambda *_: 5)
    checks.prepare(settings(sound_folder, data__processes=3), tmp_path)
    # 24 clips in chunks of five: two chunks, two chunks, the rest.
    shares = [job[3] for job in jobs]
    assert [len(indices) for indices in shares] == [10, 10, 4]
    assert sorted(i for indices in shares for i in indices) == list(range(24))


def test_every_process_reports_bad_recordings(sound_folder, tmp_path):
    # A good header with bad samples, which only decoding finds.
    for name in ("high/02.wav", "low/09.wav"):
        wave = np.full(2000, np.nan, np.float32)
        soundfile.write(sound_folder / name, wave, 8000, subtype="FLOAT")
    config = settings(sound_folder, data__processes=2)
    with pytest.raises(UserError, match="2 recordings cannot be used") as told:
        checks.prepare(config, tmp_path)
    for words in ("high/02.wav", "low/09.wav", "not finite"):
        assert words in str(told.value)
    assert not list((tmp_path / "features").iterdir())


def test_a_killed_process_is_reported_and_leaves_nothing(
    sound_folder, tmp_path, monkeypatch
):
    real, started = extraction._start, []

    def start_and_kill(job):
        started.append(real(job))
        if len(started) == 1:
            os.kill(started[0].pid, signal.SIGKILL)
        return started[-1]

    monkeypatch.setattr(extraction, "_start", start_and_kill)
    config = settings(sound_folder, data__processes=2)
    with pytest.raises(UserError, match="computes features ended with exit code -9"):
        checks.prepare(config, tmp_path)
    assert not list((tmp_path / "features").iterdir())
    assert len(started) == 2
    # The other process does not survive either.
    assert not any(psutil.pid_exists(process.pid) for process in started)


def test_two_callers_compute_once(sound_folder, tmp_path, monkeypatch):
    calls = []
    real = cache._compute

    def slow(*arguments):
        calls.append(0)
        time.sleep(0.3)
        real(*arguments)

    monkeypatch.setattr(cache, "_compute", slow)
    found = []
    run = lambda: found.append(checks.prepare(settings(sound_folder), tmp_path))
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    np.testing.assert_array_equal(found[0].features, found[1].features)


def test_leftovers_of_a_killed_worker_are_removed(sound_folder, tmp_path):
    config = settings(sound_folder)
    entry = checks.prepare(config, tmp_path / "a").path.name
    leftover = tmp_path / "b" / "features" / f"{entry}.part-killed"
    leftover.mkdir(parents=True)
    (leftover / "all.npy").write_bytes(b"half")
    checks.prepare(config, tmp_path / "b")
    assert [p.name for p in leftover.parent.iterdir()] == [entry]


@pytest.mark.parametrize("name", ["tones", "folder"])
def test_every_source_can_be_decoded_elsewhere(sound_folder, tmp_path, name):
    place = str(sound_folder) if name == "folder" else ""
    config = presets.for_dataset(name, data__data_dir=place).data
    load = checks.open_source(config, tmp_path).read().load
    copy = pickle.loads(pickle.dumps(load))
    np.testing.assert_array_equal(copy(3)[0], load(3)[0])


def test_the_number_of_processes():
    assert extraction.num_processes(100.0, 0) == 1
    assert extraction.num_processes(100.0, 4) == 4
    assert extraction.num_processes(1e6, 0) == min(os.cpu_count(), 3)


def test_chunks_are_bounded_in_bytes():
    config = presets.for_dataset("esc50").features
    for rate, seconds in ((8000, 0.5), (44_100, 5.0), (96_000, 60.0)):
        config.sample_rate, config.clip_seconds = rate, seconds
        size = extraction.chunk_size(config, 10_000)
        assert 1 <= size <= 512
        assert 1 <= extraction.chunk_size(config, 3) <= 3
        assert size * logmel.frontend(config).samples * 4 <= 33 << 20


def test_background_noise_becomes_pieces_of_a_clip(sound_folder, tmp_path):
    config = settings(sound_folder, features__sample_rate=8000)
    source = checks.open_source(config.data, tmp_path)
    recordings = source.read()
    rng = np.random.default_rng(0)
    waves = [(rng.standard_normal(n).astype(np.float32), 8000) for n in (8000, 3000)]
    object.__setattr__(recordings, "load_noise", lambda: waves)
    cache._write_noise(tmp_path, recordings, config.features)
    # 0.8 s of one second are used: a piece of half a second; none of 0.375 s.
    noise = np.load(tmp_path / "noise.npy")
    assert noise.shape == (1, 8, 16)
    samples = logmel.frontend(config.features).samples
    expected = logmel.compute(waves[0][0][None, :samples], config.features)
    np.testing.assert_allclose(noise, expected, atol=0.05)
