"""Recordings to log-mel features: clips per second against librosa, on equal cores.

    python experiments/benchmarks/data.py --clips=256 --turns=7

Each case is files on disk as a dataset publishes them, and that dataset's default
settings. Ours is what ``prepare`` runs on files: decoding, mixing, resampling, fitting
and log-mel. Librosa does the same with ``load``, ``melspectrogram`` and
``power_to_db``, in a plain loop, and with a process per core. The three alternate;
medians of the turns are compared. Needs the extra ``test`` for librosa.
"""

import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile
from absl import app, flags

import audiodd_jax
from audiodd_jax.config import FeaturesConfig
from audiodd_jax.data import audio
from audiodd_jax.features import extraction, logmel

_CLIPS = flags.DEFINE_integer("clips", 256, "files of each case")
_TURNS = flags.DEFINE_integer("turns", 7, "turns of each contender")
_CASES = flags.DEFINE_list(
    "cases", ["speech_commands", "urbansound8k", "esc50"], "of CASES"
)

# Dataset: sample rate of its files, channels, seconds.
CASES = {
    "speech_commands": (16_000, 1, 1.0),
    "urbansound8k": (44_100, 2, 4.0),
    "esc50": (44_100, 1, 5.0),
}


def write_files(folder, rate, channels, seconds):
    """16-bit WAV files of coloured noise with events, as many as asked for."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(_CLIPS.value):
        time_axis = np.arange(int(rate * seconds)) / rate
        wave = 0.1 * rng.standard_normal((channels, time_axis.size))
        wave += 0.3 * np.sin(2 * np.pi * (200 + 10 * i) * time_axis)
        paths.append(folder / f"{i:04d}.wav")
        soundfile.write(paths[-1], wave.T, rate, subtype="PCM_16")
    return paths


def by_librosa(path, settings):
    """Log-mel of a file, as librosa's users compute it."""
    import librosa

    size = logmel.frontend(settings)
    waveform, _ = librosa.load(path, sr=size.sample_rate, mono=True)
    power = librosa.feature.melspectrogram(
        y=librosa.util.fix_length(waveform, size=size.samples),
        sr=size.sample_rate,
        n_fft=size.n_fft,
        hop_length=size.hop,
        win_length=size.window,
        n_mels=settings.n_mels,
        fmin=settings.f_min,
    )
    return librosa.power_to_db(power, ref=np.max, top_db=settings.top_db)


def _chunk_by_librosa(job):
    paths, settings = job
    return [by_librosa(path, settings).astype(np.float16) for path in paths]


class _Decode:
    def __init__(self, paths):
        self.paths = paths

    def __call__(self, index):
        return audio.decode(self.paths[index])


def contenders(paths, settings, folder, pool):
    """Name -> function that transforms all files."""
    store = folder / "features.npy"
    shape = (len(paths), settings.n_mels, settings.frames)
    np.lib.format.open_memmap(store, "w+", np.float16, shape)
    indices = list(range(len(paths)))

    def ours():
        threads, size = audio.num_threads(), extraction.chunk_size(settings, len(paths))
        load, done = _Decode(paths), lambda _: None
        extraction.fill(load, settings, store, indices, size, done, threads)

    def librosa_loop():
        _chunk_by_librosa((paths, settings))

    def librosa_processes():
        parts = [paths[i::16] for i in range(16)]
        list(pool.map(_chunk_by_librosa, [(part, settings) for part in parts]))

    return {
        "ours": ours,
        "librosa, a loop": librosa_loop,
        "librosa, a process a core": librosa_processes,
    }


def shares(paths, settings):
    """Seconds of each stage, one thread doing all of them in turn as ours does."""
    size, clock = logmel.frontend(settings), time.perf_counter
    chunk = extraction.chunk_size(settings, len(paths))
    buffer = np.zeros((chunk, size.samples), np.float32)
    decoding = resampling = features = 0.0
    for start in range(0, len(paths) - chunk + 1, chunk):
        for row, path in enumerate(paths[start : start + chunk]):
            began = clock()
            waveform, rate = audio.decode(path)
            decoded = clock()
            waveform = audio.resample(waveform, rate, size.sample_rate)
            audio.fit(waveform, size.samples, settings.align, out=buffer[row])
            decoding += decoded - began
            resampling += clock() - decoded
        began = clock()
        np.asarray(logmel.compute(buffer, settings))
        features += clock() - began
    return [decoding, resampling, features]


def agreement(paths, settings):
    """Largest difference in dB between ours and librosa's, over a few clips."""
    size = logmel.frontend(settings)
    settings = FeaturesConfig(**{**vars(settings), "align": "start"})
    differences = []
    for path in paths[:8]:
        waveform = audio.load(path, size.sample_rate, size.samples, "start")
        mine = np.asarray(logmel.compute(waveform[None], settings))[0]
        theirs = by_librosa(path, settings)[:, : size.frames]
        differences.append(np.abs(mine - theirs).max())
    return max(differences)


def main(_):
    print(
        f"{os.cpu_count()} cores, {_CLIPS.value} files a case, {_TURNS.value} turns\n"
    )
    print("| files as in | contender | clips/s | ours is faster by |")
    print("|---|---|---|---|")
    notes = []
    context = get_context("spawn")
    # A process a core needs no threads beside it.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(audio.num_threads(), mp_context=context) as pool:
        for name in _CASES.value:
            settings = audiodd_jax.for_dataset(name).features
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                paths = write_files(folder, *CASES[name])
                runs = contenders(paths, settings, folder, pool)
                times = {contender: [] for contender in runs}
                for turn in range(_TURNS.value + 1):
                    for contender, run in runs.items():
                        began = time.perf_counter()
                        run()
                        if turn:  # the first compiles, imports and fills caches
                            times[contender].append(time.perf_counter() - began)
                parts = shares(paths, settings)
                difference = agreement(paths, settings)
            median = {c: statistics.median(t) for c, t in times.items()}
            for contender, seconds in median.items():
                ratio = statistics.median(
                    theirs / mine
                    for theirs, mine in zip(
                        times[contender], times["ours"], strict=True
                    )
                )
                shown = "" if contender == "ours" else f"{ratio:.2f} times"
                rate = _CLIPS.value / seconds
                print(f"| {name} | {contender} | {rate:,.0f} | {shown} |", flush=True)
            percent = [f"{100 * part / sum(parts):.0f} %" for part in parts]
            notes.append((name, *percent, f"{difference:.2f} dB"))
    print("\n| files as in | decoding | resampling, fitting | log-mel | difference |")
    print("|---|---|---|---|---|")
    for note in notes:
        print("| " + " | ".join(note) + " |")


if __name__ == "__main__":
    app.run(main)
