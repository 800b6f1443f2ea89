"""Measures memory and time of preparing and loading a dataset like Speech Commands.

    python experiments/benchmarks/prepare.py --place=/tmp/stand_in

Writes a stand-in for Speech Commands v0.02 (as many clips of each word, noise as sound,
3.4 GB) and prepares it in a process of its own with an empty cache. Reports the largest
memory of that process and its children together (proportional set size, which counts
shared pages once), the time, and the time to load the prepared dataset.
"""

import hashlib
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import soundfile
from absl import app, flags

from audiodd_jax.data.published import speech_commands

_PLACE = flags.DEFINE_string("place", None, "empty folder to work in", required=True)
_SHARE = flags.DEFINE_float("share", 1.0, "share of the clips of each word")
_FLAGS = flags.DEFINE_multi_string("flag", [], "further flags of audiodd prepare")

RATE = 16_000
SPEAKERS = 2_618
DATASET = ("--dataset=speech_commands", "--variant=v0.02", "--allow_partial")


def write_stand_in(folder):
    """Writes clips of noise in the published layout, with the official lists."""
    rng = np.random.default_rng(0)
    noise = (3_000 * rng.standard_normal(25 * RATE)).astype(np.int16)
    head = io.BytesIO()
    soundfile.write(head, noise[:RATE], RATE, format="WAV", subtype="PCM_16")
    head = head.getvalue()[: -2 * RATE]
    lists = {"train": [], "validation": [], "test": []}
    for word, published in speech_commands.WORDS["v0.02"].items():
        (folder / word).mkdir(parents=True)
        for i in range(round(_SHARE.value * published)):
            speaker = hashlib.sha1(str(i % SPEAKERS).encode()).hexdigest()[:8]
            name = f"{speaker}_nohash_{i // SPEAKERS}.wav"
            start = int(rng.integers(noise.size - RATE))
            sound = noise[start : start + RATE].tobytes()
            (folder / word / name).write_bytes(head + sound)
            lists[speech_commands.official_part(name)].append(f"{word}/{name}")
    for name, part in speech_commands.LISTS.items():
        (folder / name).write_text("\n".join(lists[part]) + "\n")
    (folder / speech_commands.NOISE_FOLDER).mkdir()
    for i in range(6):
        path = folder / speech_commands.NOISE_FOLDER / f"noise{i}.wav"
        soundfile.write(path, np.tile(noise, 3)[: 65 * RATE], RATE, subtype="PCM_16")


def watched(command):
    """Runs a command; returns output, seconds and its tree's peak memory in GB."""
    began, most = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            total = 0
            try:
                for one in (parent, *parent.children(recursive=True)):
                    total += one.memory_full_info().pss
            except psutil.Error:  # a process of the tree has just ended
                continue
            most = max(most, total)
            time.sleep(0.05)
        output = process.stdout.read()
    if process.returncode:
        raise SystemExit(process.returncode)
    return output, time.perf_counter() - began, most / 1e9


LOAD = """
import sys, time, jax
from audiodd_jax.config import presets
from audiodd_jax.features import dataset
jax.numpy.zeros(1).block_until_ready()
config = presets.for_dataset("speech_commands", data__variant="v0.02",
    data__allow_partial=True, data__data_dir=sys.argv[1], data__storage=sys.argv[2])
began = time.perf_counter()
data = dataset.load(config.data, config.features)
jax.block_until_ready((data.test, getattr(data.train, "features", None)
    if sys.argv[2] == "device" else data.train.labels))
print(f"{time.perf_counter() - began:.2f}")
"""


def main(_):
    place = Path(_PLACE.value)
    data, cache = place / "speech_commands", place / "cache"
    if not data.exists():
        write_stand_in(data)
    os.environ["AUDIODD_CACHE"] = str(cache)
    command = [sys.executable, "-m", "audiodd_jax", "prepare", *DATASET]
    command += [f"--data_dir={data}", *_FLAGS.value]
    print("| | seconds | largest memory (GB) |")
    print("|---|---|---|")
    for what in ("prepare", "prepare again"):
        _, seconds, memory = watched(command)
        print(f"| {what} | {seconds:.1f} | {memory:.2f} |", flush=True)
    for storage in ("device", "host"):
        load = [sys.executable, "-c", LOAD, str(data), storage]
        output, _, memory = watched(load)
        print(f"| load, storage={storage} | {output.strip()} | {memory:.2f} |")


if __name__ == "__main__":
    app.run(main)
