"""Measures clips per second from recordings to log-mel features, against librosa.

    python experiments/benchmarks/data.py --clips=256 --turns=7

Each case has files on disk in a dataset's published format, and that dataset's default
settings. Our contender runs what ``prepare`` runs on files: decoding, mixing,
resampling, fitting and log-mel. Librosa does the same with ``load``, ``melspectrogram``
and ``power_to_db``, in a plain loop and with one process per core. All use the same
cores and alternate; medians of the turns are compared. Needs the extra ``test`` for
librosa.
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
    "cases", ["speech_commands", "urbansound8k", "esc50"], "names of CASES"
)

# Dataset: sample rate of its files, channels, seconds.
CASES = {
    "speech_commands": (16_000, 1, 1.0),
    "urbansound8k": (44_100, 2, 4.0),
    "esc50": (44_100, 1, 5.0),
}


def write_files(folder, rate, channels, seconds):
    """Writes 16-bit WAV files of coloured noise with events."""
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
    """Computes log-mel of a file as users of librosa do."""
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
    """Returns functions that transform all files, by name."""
    store = folder / "features.npy"
    shape = (len(paths), settings.n_mels, settings.frames)
    np.lib.format.open_memmap(store, "w+", np.float16, shape)
    indices = list(range(len(paths)))

    def ours():
        part = extraction.Part(_Decode(paths), settings, store, indices)
        extraction.fill(part, lambda _: None, audio.num_threads())

    def librosa_loop():
        _chunk_by_librosa((paths, settings))

    def librosa_processes():
        parts = [paths[i::16] for i in range(16)]
        list(pool.map(_chunk_by_librosa, [(part, settings) for part in parts]))

    return {
        "ours": ours,
        "librosa, a loop": librosa_loop,
        "librosa, one process per core": librosa_processes,
    }


def shares(paths, settings):
    """Measures the seconds of each stage, in one thread."""
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
    """Returns the largest difference in dB from librosa, over a few clips."""
    size = logmel.frontend(settings)
    settings = FeaturesConfig(**{**vars(settings), "align": "start"})
    differences = []
    for path in paths[:8]:
        waveform = audio.resample(*audio.decode(path), size.sample_rate)
        waveform = audio.fit(waveform, size.samples, "start")
        mine = np.asarray(logmel.compute(waveform[None], settings))[0]
        theirs = by_librosa(path, settings)[:, : size.frames]
        differences.append(np.abs(mine - theirs).max())
    return max(differences)


def main(_):
    print(
        f"{os.cpu_count()} cores, {_CLIPS.value} files per case, {_TURNS.value} turns\n"
    )
    print("| files as in | contender | clips/s | our speed-up |")
    print("|---|---|---|---|")
    notes = []
    context = get_context("spawn")
    # One process per core needs no further threads.
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
                        if turn:  # the first turn compiles, imports and fills caches
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
