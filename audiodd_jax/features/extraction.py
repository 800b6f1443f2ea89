"""Extracts log-mel features from recordings, in one process or several."""

import itertools
import json
import math
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from audiodd_jax.config import FeaturesConfig
from audiodd_jax.data import audio
from audiodd_jax.data.recordings import Decoded
from audiodd_jax.errors import UserError
from audiodd_jax.features import logmel
from audiodd_jax.runtime import devices, progress
from audiodd_jax.runtime.environment import standard_numerics

# Bytes of waveforms that a thread decodes and transforms at once, which fit its cache.
_CHUNK_BYTES = 8 << 20
_MOST_CLIPS = 512
# A process costs 2 s and 0.3 GB at its start, which this many seconds of audio pay off.
# Three processes and their parent stay under 2 GB.
_WORTH_A_PROCESS = 20_000.0
_MOST_PROCESSES = 3


def chunk_size(settings: FeaturesConfig, clips: int) -> int:
    """Returns the number of clips that are decoded and transformed at once."""
    samples, block = logmel.frontend(settings).samples, logmel.block_size(settings)
    most = max(1, min(_MOST_CLIPS, _CHUNK_BYTES // (4 * samples), clips))
    # Padding a batch to whole blocks would copy it.
    return most - most % block or most


def num_processes(seconds: float, requested: int) -> int:
    """Returns the requested number, or with 0 a number for ``seconds`` of audio."""
    if requested:
        return requested
    worth = int(seconds // _WORTH_A_PROCESS)
    return max(1, min(worth, os.cpu_count() or 1, _MOST_PROCESSES))


class Part(NamedTuple):
    """Recordings to extract features from, and where to write them."""

    load: Callable[[int], Decoded]  # decodes a recording by its index
    settings: FeaturesConfig  # resolved
    path: Path  # a float16 ``.npy`` of ``[clips, f, t]`` in dB
    indices: Sequence[int]  # of the recordings, and so of the rows that are filled

    def split(self, size: int) -> list["Part"]:
        """Splits the part into parts of ``size`` clips; the last may be smaller."""
        starts = range(0, len(self.indices), size)
        return [self._replace(indices=self.indices[i : i + size]) for i in starts]


def fill(part: Part, done: Callable[[int], object], threads: int) -> dict[int, str]:
    """Writes the features of recordings; rows of undecodable ones do not change.

    ``done`` is called with the number of clips in each finished chunk.

    Returns:
      Error messages of the recordings that cannot be decoded, by index.
    """
    settings, size = part.settings, chunk_size(part.settings, len(part.indices))
    samples = logmel.frontend(settings).samples
    local = threading.local()
    # Each thread computes on another device, as far as there are enough.
    local_devices = itertools.cycle(devices.make_mesh().local_mesh.devices.flat)

    def fill_chunk(chunk: Part) -> dict[int, str]:
        if not hasattr(local, "buffer"):  # reused: allocating takes as long as decoding
            local.buffer = np.zeros((size, samples), np.float32)
            local.device = next(local_devices)
        rows, errors = [], {}
        for row, index in enumerate(chunk.indices):
            try:
                waveform, rate = chunk.load(index)
            except audio.BadAudioError as error:
                errors[index] = str(error)
                continue
            waveform = audio.resample(waveform, rate, settings.sample_rate)
            audio.fit(waveform, samples, settings.align, out=local.buffer[row])
            rows.append(row)
        # The settings of the caller's thread do not hold in this one.
        with standard_numerics(), jax.default_device(local.device):
            values = np.asarray(logmel.compute(local.buffer, settings))
        # Reopened for each chunk, so that written pages leave the resident memory.
        store = np.load(chunk.path, mmap_mode="r+")
        store[np.asarray(chunk.indices)[rows]] = values[rows]
        done(len(chunk.indices))
        return errors

    bad: dict[int, str] = {}
    with ThreadPoolExecutor(threads) as pool:
        for errors in pool.map(fill_chunk, part.split(size)):
            bad |= errors
    return bad


def extract(whole: Part, processes: int) -> dict[int, audio.BadAudioError]:
    """Fills rows of a memory-mapped array.

    With one process, this process computes on its devices; with more, child processes
    compute on the CPU.

    Returns:
      Errors of the recordings that cannot be decoded, by index.

    Raises:
      UserError: a process died.
    """
    clips = len(whole.indices)
    with progress.bar(clips, desc="features", unit="clip") as bar:
        if processes == 1:
            bad = fill(whole, bar.update, audio.num_threads())
        else:
            # Each process takes a whole number of chunks, at least one.
            size = chunk_size(whole.settings, math.ceil(clips / processes))
            share = size * math.ceil(clips / processes / size)
            bad = _by_processes(whole.split(share), bar)
    return {index: audio.BadAudioError(bad[index]) for index in sorted(bad)}


def _by_processes(parts: list[Part], bar: tqdm) -> dict[int, str]:
    started: list[subprocess.Popen] = []
    bad: dict[int, str] = {}
    lock = threading.Lock()

    def follow(process: subprocess.Popen) -> None:
        for line in process.stdout:
            message = json.loads(line)
            with lock:
                if "bad" in message:
                    bad.update((int(i), text) for i, text in message["bad"].items())
                else:
                    bar.update(message["done"])

    try:
        for part in parts:
            started.append(_start(part))
        with ThreadPoolExecutor(len(started)) as pool:
            list(pool.map(follow, started))
        for process in started:
            if process.wait() != 0:
                raise UserError(
                    "a process that computes features ended with exit code "
                    f"{process.returncode} (-9: most likely out of memory; "
                    "--config.data.processes=1 needs the least)"
                )
    finally:
        for process in started:
            process.kill()
            process.wait()
            process.stdout.close()
    return bad


def _start(part: Part) -> subprocess.Popen:
    # multiprocessing would run the caller's script again.
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    process = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-c",
            f"import {__name__} as e; e.fill_part_of_parent()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    try:
        with process.stdin as stream:
            pickle.dump(part, stream)
    except BrokenPipeError as error:
        process.kill()
        raise UserError(
            "a process that computes features died at its start; "
            "--config.data.processes=1 needs none"
        ) from error
    return process


def fill_part_of_parent() -> None:
    """Runs in a child process: reads its part on stdin, and prints JSON lines."""
    tell = lambda **message: print(json.dumps(message), flush=True)
    part = pickle.load(sys.stdin.buffer)
    tell(bad=fill(part, lambda clips: tell(done=clips), threads=1))
    audio.report_opposite()
