"""Recordings to rows of log-mel features, in chunks, by one process or several."""

import json
import math
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from audiodd_jax.config import FeaturesConfig
from audiodd_jax.data import audio
from audiodd_jax.data.recordings import Decoded, Recordings
from audiodd_jax.features import logmel
from audiodd_jax.runtime.errors import UserError

# Waveforms decoded, then transformed, at once: two such chunks are alive.
_CHUNK_BYTES = 32 << 20
_MOST_CLIPS = 512
# A process costs 2 s and 0.4 GB to start: this much sound (in seconds) is worth one
# more, and three of them and their parent stay under 2 GB.
_WORTH_A_PROCESS = 3_600.0
_MOST_PROCESSES = 3


def chunk_size(settings: FeaturesConfig) -> int:
    """Clips decoded and transformed at once: one shape, one compilation."""
    samples = logmel.frontend(settings).samples
    return max(1, min(_MOST_CLIPS, _CHUNK_BYTES // (4 * samples)))


def num_processes(seconds: float, asked_for: int) -> int:
    """Processes to use for ``seconds`` of sound; ``asked_for`` 0 leaves the choice."""
    if asked_for:
        return asked_for
    worth = int(seconds // _WORTH_A_PROCESS)
    return max(1, min(worth, os.cpu_count() or 1, _MOST_PROCESSES))


def fill(
    load: Callable[[int], Decoded],
    settings: FeaturesConfig,
    path: Path,
    indices: Sequence[int],
    done: Callable[[int], None],
    threads: int,
) -> dict[int, str]:
    """Writes the features of the recordings ``indices`` to their rows of an array.

    Args:
      load: decodes a recording.
      settings: resolved feature settings.
      path: a float16 ``.npy`` of ``[clips, f, t]`` in dB; rows of recordings that
        cannot be decoded stay as they are.
      indices: of the recordings.
      done: told of how many clips are finished, chunk by chunk.
      threads: that decode.

    Returns:
      What is wrong with those that cannot be decoded.
    """
    bad: dict[int, str] = {}
    for chunk, waveforms, errors in _decoded(load, settings, indices, threads):
        bad |= errors
        values = np.asarray(logmel.compute(waveforms, settings))
        rows = [row for row, index in enumerate(chunk) if index not in errors]
        # Opened anew each time: pages of a closed map are no longer counted as ours.
        store = np.load(path, mmap_mode="r+")
        store[np.asarray(chunk)[rows]] = values[rows]
        store.flush()
        done(len(chunk))
    return bad


def _decoded(
    load: Callable[[int], Decoded],
    settings: FeaturesConfig,
    indices: Sequence[int],
    threads: int,
) -> Iterator[tuple[Sequence[int], np.ndarray, dict[int, str]]]:
    """Chunks of waveforms; the next chunk is decoded while the caller works on one."""
    size, samples = chunk_size(settings), logmel.frontend(settings).samples
    chunks = [indices[i : i + size] for i in range(0, len(indices), size)]
    # Two buffers in turn; the caller is through with one before it is written again.
    buffers = np.zeros((2, size, samples), np.float32)

    def one(index: int, row: np.ndarray) -> str:
        try:
            waveform, rate = load(index)
        except audio.BadAudioError as error:
            return str(error)
        waveform = audio.resample(waveform, rate, settings.sample_rate)
        row[:] = audio.fit(waveform, samples, settings.align)
        return ""

    with ThreadPoolExecutor(threads) as pool:
        submit = lambda number: [
            pool.submit(one, index, buffers[number % 2, row])
            for row, index in enumerate(chunks[number])
        ]
        ahead = submit(0) if chunks else []
        for number, chunk in enumerate(chunks):
            results = [future.result() for future in ahead]
            errors = {i: text for i, text in zip(chunk, results, strict=True) if text}
            ahead = submit(number + 1) if number + 1 < len(chunks) else []
            yield chunk, buffers[number % 2], errors


def extract(
    recordings: Recordings,
    settings: FeaturesConfig,
    path: Path,
    indices: Sequence[int],
    processes: int,
) -> dict[int, audio.BadAudioError]:
    """Fills the rows ``indices`` of the memory-mapped array at ``path``.

    Args:
      recordings: what to decode.
      settings: resolved feature settings.
      path: a float16 ``.npy`` of ``[clips, f, t]``.
      indices: of the recordings.
      processes: one works in this process, on its device; more are started, and work
        on the CPU.

    Returns:
      What is wrong with those that cannot be decoded.

    Raises:
      UserError: a process died.
    """
    bar = tqdm(total=len(indices), desc="features", unit="clip", disable=None)
    with bar:
        if processes == 1:
            arguments = (path, indices, bar.update, audio.num_threads())
            told = fill(recordings.load, settings, *arguments)
        else:
            told = _by_processes(recordings, settings, path, indices, processes, bar)
    return {index: audio.BadAudioError(told[index]) for index in sorted(told)}


def _by_processes(
    recordings: Recordings,
    settings: FeaturesConfig,
    path: Path,
    indices: Sequence[int],
    processes: int,
    bar: tqdm,
) -> dict[int, str]:
    # Whole chunks each, so that every row comes from a batch of the same shape.
    share = math.ceil(len(indices) / processes / chunk_size(settings))
    share *= chunk_size(settings)
    parts = [indices[i : i + share] for i in range(0, len(indices), share)]
    started: list[subprocess.Popen] = []
    told: dict[int, str] = {}
    lock = threading.Lock()

    def follow(process: subprocess.Popen) -> None:
        for line in process.stdout:
            message = json.loads(line)
            with lock:
                if "bad" in message:
                    told.update((int(i), text) for i, text in message["bad"].items())
                else:
                    bar.update(message["done"])

    try:
        for part in parts:
            job = (recordings.load, settings, path, list(part))
            started.append(_start(job))
        with ThreadPoolExecutor(len(started)) as pool:
            list(pool.map(follow, started))
        for process in started:
            if process.wait() != 0:
                raise UserError(
                    f"a process that computes features ended with {process.returncode} "
                    "(-9: most likely too little memory; --config.data.processes=1 "
                    "needs least)"
                )
    finally:
        for process in started:
            process.kill()
            process.wait()
            process.stdout.close()
    return told


def _start(job: tuple) -> subprocess.Popen:
    # A plain child process: multiprocessing would run the caller's script again.
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")
        + " --xla_cpu_multi_thread_eigen=false",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "audiodd_jax.features.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    with process.stdin as stream:
        pickle.dump(job, stream)
    return process
