"""``audiodd sweep`` as a user runs it: locally, interrupted, and on a cluster."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import command_line
import numpy as np
import pytest
from command_line import TINY, audiodd

from audiodd_jax import load_coreset
from audiodd_jax.sweep.status import SWEEP_RECORD

FIELDS = dict(flag.removeprefix("--").split("=") for flag in TINY)
CLUSTER = Path(command_line.__file__).with_name("two_nodes.sh")


def sweep_file(path, runs):
    path.write_text(f"COMMON = {FIELDS | {'dataset': 'tones'}!r}\nRUNS = {runs!r}\n")
    return path


def events(workdir, event):
    rows = [
        json.loads(line) for line in (workdir / SWEEP_RECORD).read_text().splitlines()
    ]
    return sorted(row["run"] for row in rows if row["event"] == event)


@pytest.mark.slow
def test_failed_runs_are_reported_and_finished_ones_kept(tmp_path):
    runs = [
        {"name": "good", "method": "random", "samples_per_class": 1},
        {"name": "bad", "method": "random", "samples": 3},
    ]
    file, workdir = sweep_file(tmp_path / "s.py", runs), tmp_path / "out"
    done = audiodd("sweep", file, f"--workdir={workdir}", "--jobs=2")
    assert done.returncode == 1
    assert "audiodd: error: 1 of 2 runs have no result (bad)" in done.stderr
    assert "good: finished" in done.stderr
    assert "bad: failed: samples=3, but each of the 10 classes" in done.stderr
    assert re.search(r"\| good +\| finished +\| 1 ", done.stdout)
    assert (workdir / "good" / "coreset.npz").exists()
    assert re.search(r"\| bad +\| failed ", (workdir / "status.md").read_text())
    again = audiodd("sweep", file, f"--workdir={workdir}")
    assert again.returncode == 1
    assert events(workdir, "started") == ["bad", "bad", "good"]


@pytest.mark.slow
def test_a_stopped_sweep_saves_its_runs_and_resumes(tmp_path):
    runs = [{"name": "long", "steps": 4000}, {"name": "short", "seed": 1}]
    file, workdir = sweep_file(tmp_path / "s.py", runs), tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "audiodd_jax",
        "sweep",
        file,
        f"--workdir={workdir}",
    ]
    first = workdir / "long"
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    until = time.monotonic() + 200
    while not (first / "metrics.jsonl").exists() or (
        len((first / "metrics.jsonl").read_text().splitlines()) < 4
    ):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < until
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=100)[0].decode()
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "the same command resumes" in output
    assert events(workdir, "cut") == ["long"]
    assert events(workdir, "started") == ["long"]
    assert any((first / "checkpoints").iterdir())


@pytest.mark.nightly
@pytest.mark.skipif(
    not shutil.which("unshare") or os.geteuid() != 0,
    reason="a network of its own takes unshare and the right to use it",
)
def test_twelve_runs_on_a_cluster_of_two_nodes_with_a_worker_killed(tmp_path):
    """Each finishes once, bit-for-bit identical to a sweep without a cluster."""
    runs = [
        {"seed": seed, "config.optimizer.learning_rate": rate, "steps": 60}
        for seed in range(6)
        for rate in (0.01, 0.03)
    ]
    file = sweep_file(tmp_path / "s.py", runs)
    cluster, alone = tmp_path / "cluster", tmp_path / "alone"
    done = subprocess.run(
        ["unshare", "--net", "bash", CLUSTER, file, cluster],
        capture_output=True,
        text=True,
        timeout=1500,
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed the worker of" in done.stdout
    assert (
        len(events(cluster, "finished")) == len(set(events(cluster, "finished"))) == 12
    )
    # One more start than runs: that of the run whose worker was killed.
    assert len(events(cluster, "started")) == 13
    done = audiodd("sweep", file, f"--workdir={alone}", "--jobs=2")
    assert done.returncode == 0, done.stderr
    for name in events(alone, "finished"):
        one, other = (load_coreset(w / name / "coreset.npz") for w in (cluster, alone))
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
