"""A hundred SIGKILLs at random moments do not change a bit of a run's results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from audiodd_jax.runtime.files import load_npy, load_npz

pytestmark = [pytest.mark.slow, pytest.mark.optimized]
KILLS = int(os.environ.get("AUDIODD_TEST_KILLS", "100"))

FEATURES = [
    "--dataset=tones",
    *("--config.features.n_mels=8", "--config.features.frames=8"),
    *("--config.features.sample_rate=4000", "--config.features.clip_seconds=0.25"),
    "--config.data.validation_fraction=0.05",
]
DISTILL = [
    *FEATURES,
    *("--samples_per_class=1", "--steps=12", "--config.loop.batch_size=16"),
    *("--config.network.width=2", "--config.network.depth=1"),
    *("--config.rfad.networks=1", "--config.loop.log_every=1"),
    *("--config.loop.eval_every=4", "--config.loop.checkpoint_every=2"),
    *("--config.evaluation.networks=1", "--config.evaluation.seeds=1"),
]
TRAINING = [
    *("--config.training.log_every=1", "--config.training.checkpoint_every=2"),
    "--config.training.eval_every=4",
]
TRAIN = [
    *(*FEATURES, *TRAINING, "--model=linear", "--steps=12"),
    "--config.training.seeds=2",
]
ACTIVE = [
    *(*FEATURES, *TRAINING, "--steps=4", "--budgets=2/class,3/class"),
    *("--config.model.depth=1", "--config.model.width=2"),
    *("--config.active.passes=2", "--config.active.initial=1/class"),
]


# Variables that differ from command to command.
_VARIABLES = ("AUDIODD_MIRRORS",)


class ForkServer:
    """Runs commands in forks of one process, and kills them."""

    def __init__(self, log):
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("fork_server.py")],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout.readline() == "ready\n"

    def run(self, argv, kill_after=None, victim="process"):
        """Returns how a command ended, and after how many seconds."""
        request = {
            "argv": list(map(str, argv)),
            "environment": {n: os.environ[n] for n in _VARIABLES if n in os.environ},
            "log": str(self._log),
            "kill_after": kill_after,
            "victim": victim,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def finish(self, argv):
        """Runs a command to its end; returns the seconds that it took."""
        ended = self.run(argv)
        assert ended["status"] == 0, self._log.read_text()[-2000:]
        return ended["seconds"]

    def close(self):
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def fork_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIODD_CACHE", str(folder / "cache"))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        started = ForkServer(folder / "log")
    yield started
    started.close()


def loads(folder, *, torn=()):
    """Checks that no file is half-written, except the last line of ``torn`` ones."""
    for path in folder.rglob("*"):
        if ".part-" in path.name or "checkpoints" in path.parts:
            continue
        if path.suffix == ".npz":
            load_npz(path)
        elif path.suffix == ".npy":
            load_npy(path)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            lines = path.read_text().splitlines(keepends=True)
            if lines and path.name in torn and not lines[-1].endswith("\n"):
                del lines[-1]
            for line in lines:
                json.loads(line)


def left_behind(folder):
    """Returns files that only an interrupted write leaves."""
    marks = (".part-", ".orbax-checkpoint-tmp", "tmp")
    return [p for p in folder.rglob("*") if any(mark in p.name for mark in marks)]


_TIMES = ("seconds", "wall_seconds", "training_seconds", "scoring_seconds")
_VARYING = (*_TIMES, "peak_memory_bytes")


def without_times(value):
    """Removes times and memory, which vary between runs, from a record."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in _VARYING}
    return list(map(without_times, value)) if isinstance(value, list) else value


def results(folder):
    """Returns the bytes of a run's arrays and its records, by file name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if "checkpoints" in path.parts:
            continue
        if path.suffix in (".npz", ".npy"):
            found[name] = path.read_bytes()
        elif path.name in ("config.json", "data.json", "result.json"):
            found[name] = without_times(json.loads(path.read_text()))
        elif path.name == "metrics.jsonl":
            rows = map(json.loads, path.read_text().splitlines())
            found[name] = [without_times(row) for row in rows]
    return found


def killed_often(fork_server, command, whole, folder, seconds, kills, seed, victims):
    """Kills a command repeatedly, and compares its runs with an uninterrupted one.

    Args:
      command: without its run directory.
      whole: folder of the uninterrupted run.
      folder: parent of the runs that are killed.
      seconds: duration of the uninterrupted run, over which the kills are spread.
      victims: see ``fork_server``.
    """
    rng = np.random.default_rng(seed)
    moments = list(seconds * (rng.permutation(kills) + rng.random(kills)) / kills)
    expected, runs = results(whole), 0
    assert expected
    while moments:
        runs += 1
        argv = [*command, f"--workdir={folder / str(runs)}"]
        is_killed = True
        while moments and is_killed:
            victim = victims[rng.integers(len(victims))]
            is_killed = fork_server.run(argv, moments[-1], victim)["killed"]
            if is_killed:
                moments.pop()
            else:  # the command had already finished
                moments[-1] *= rng.random()
            loads(folder / str(runs), torn=("metrics.jsonl", "sweep.jsonl"))
        fork_server.finish(argv)
        loads(folder / str(runs))
        assert left_behind(folder / str(runs)) == []
        assert results(folder / str(runs)) == expected


@pytest.mark.parametrize(
    ("name", "flags", "share"),
    [("distill", DISTILL, 0.3), ("train", TRAIN, 0.4), ("active", ACTIVE, 0.15)],
)
def test_a_run(fork_server, tmp_path, name, flags, share):
    command = [name, *flags]
    fork_server.finish([*command, f"--workdir={tmp_path / 'first'}"])  # compiles
    whole = tmp_path / "whole"
    seconds = fork_server.finish([*command, f"--workdir={whole}"])
    assert results(whole) == results(tmp_path / "first")
    kills = round(share * KILLS)
    killed_often(
        fork_server, command, whole, tmp_path, seconds, kills, len(name), ["process"]
    )


def test_a_sweep(fork_server, tmp_path):
    """Kills the sweep, its runs, and both at once."""
    grid = {flag.split("=")[0][2:]: [flag.split("=")[1]] for flag in DISTILL}
    grid["seed"] = [0, 1]
    file = tmp_path / "sweep.py"
    file.write_text(f"GRID = {grid}\n")
    command = ["sweep", file]
    whole = tmp_path / "whole"
    fork_server.finish([*command, f"--workdir={tmp_path / 'first'}"])
    seconds = fork_server.finish([*command, f"--workdir={whole}"])
    victims = ["process", "run", "group"]
    kills = round(0.15 * KILLS)
    killed_often(fork_server, command, whole, tmp_path, seconds, kills, 0, victims)
