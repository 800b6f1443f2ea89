"""SIGKILLs at random moments do not change a bit of a run in an object store.

Each attempt runs on the machine of the last one, or on a new one with an empty disk.
"""

import os

import numpy as np
import pytest
import stores
from test_killed import ACTIVE, DISTILL, TRAIN, ForkServer, left_behind, loads, results

from audiodd_jax.config import user_paths
from audiodd_jax.runtime import mirror

pytestmark = pytest.mark.optimized
KILLS = int(os.environ.get("AUDIODD_TEST_STORE_KILLS", "50"))


@pytest.fixture
def store(monkeypatch):
    with stores.serving("s3") as store:
        for name, value in store.variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AUDIODD_LEASE_SECONDS", "0.6")
        yield store


@pytest.fixture
def fork_server(store, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("killed")
    monkeypatch.setenv("AUDIODD_CACHE", str(folder / "cache"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    started = ForkServer(folder / "log")
    yield started
    started.close()


def killed_often(fork_server, store, tmp_path, monkeypatch, command, kills, victims):
    """Kills a command, and compares what the store holds with an uninterrupted run."""

    def folder_of(machine, run):
        monkeypatch.setenv("AUDIODD_MIRRORS", str(tmp_path / machine))
        return user_paths.local(f"{store.url}/{run}")

    whole = tmp_path / "whole"
    fork_server.finish([*command, f"--workdir={tmp_path / 'first'}"])  # compiles
    fork_server.finish([*command, f"--workdir={whole}"])
    seconds = fork_server.finish([*command, f"--workdir={store.url}/first"])
    rng, killed, runs, machine = np.random.default_rng(len(command)), 0, 0, 0
    while killed < kills:
        runs, is_killed = runs + 1, True
        while is_killed:
            machine += int(rng.integers(2))
            moment = seconds * rng.random() if killed < kills else None
            victim = victims[rng.integers(len(victims))]
            argv = [*command, f"--workdir={folder_of(str(machine), f'r{runs}')}"]
            ended = fork_server.run(argv, moment, victim)
            is_killed = ended["killed"]
            killed += is_killed
            here = folder_of(str(machine), f"r{runs}")
            loads(here, torn=("metrics.jsonl", "sweep.jsonl"))
        assert ended["status"] == 0, fork_server._log.read_text()[-2000:]
        here = folder_of("reader", f"r{runs}")
        mirror.fetch(here)
        loads(here)
        assert left_behind(here) == []
        assert results(here) == results(whole)


@pytest.mark.slow
def test_a_distillation_that_is_killed_twice(fork_server, store, tmp_path, monkeypatch):
    command = ["distill", *DISTILL]
    given = (fork_server, store, tmp_path, monkeypatch, command)
    killed_often(*given, kills=2, victims=["process"])


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "flags", "share"),
    [("distill", DISTILL, 0.4), ("train", TRAIN, 0.3), ("active", ACTIVE, 0.3)],
)
def test_a_run_that_is_killed_often(
    fork_server, store, tmp_path, monkeypatch, name, flags, share
):
    given = (fork_server, store, tmp_path, monkeypatch, [name, *flags])
    killed_often(*given, kills=round(share * KILLS), victims=["process"])


@pytest.mark.slow
@pytest.mark.nightly
def test_a_sweep_that_is_killed_often(fork_server, store, tmp_path, monkeypatch):
    grid = {flag.split("=")[0][2:]: [flag.split("=")[1]] for flag in DISTILL}
    grid["seed"] = [0, 1]
    file = tmp_path / "sweep.py"
    file.write_text(f"GRID = {grid}\n")
    given = (fork_server, store, tmp_path, monkeypatch, ["sweep", file])
    victims = ["process", "run", "group"]
    killed_often(*given, kills=KILLS, victims=victims)
