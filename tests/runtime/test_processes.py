"""Two processes as one run on the loopback address, from the command line."""

import json
import os
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from audiodd_jax.commands import main
from audiodd_jax.errors import UserError
from audiodd_jax.runtime import multiprocess

pytestmark = pytest.mark.slow

RUN = [
    "distill",
    "--dataset=tones",
    "--samples_per_class=1",
    "--num_devices=4",
    "--config.features.n_mels=16",
    "--config.features.frames=16",
    "--config.network.depth=2",
    "--config.network.width=4",
    "--config.network.readout=flatten",
    "--config.rfad.networks=4",
    "--config.optimizer.learning_rate=1e-2",
    "--config.loop.batch_size=64",
    "--config.loop.log_every=2",
    "--config.loop.eval_every=10",
    "--config.loop.checkpoint_every=10",
    "--config.evaluation.networks=2",
    "--config.evaluation.width=8",
    "--config.evaluation.seeds=1",
]


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "audiodd_jax", *RUN, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )


def start_two(*arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"--coordinator_address=127.0.0.1:{port}"
    own = lambda number: ("--num_processes=2", f"--process_id={number}")
    return [start(*arguments, address, *own(number)) for number in (0, 1)]


def test_two_processes_distil_the_same_coreset_as_one(tmp_path):
    steps = "--steps=20"
    alone = start(steps, f"--workdir={tmp_path / 'one'}")
    _, output = alone.communicate(timeout=300)
    assert alone.returncode == 0, output
    both = start_two(steps, f"--workdir={tmp_path / 'two'}")
    output = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], output
    # Only process 0 prints and writes.
    assert "test accuracy, distilled" in output[0][0]
    assert "coreset" not in output[1][0]
    load = lambda name: np.load(tmp_path / name / "coreset.npz")["images"]
    one, two = load("one"), load("two")
    assert np.linalg.norm(two - one) < 1e-5 * np.linalg.norm(one)
    environment = json.loads((tmp_path / "two" / "environment.json").read_text())
    assert environment["num_processes"] == 2
    assert len(environment["devices"]) == 4


def test_a_lost_process_is_reported_and_the_run_resumes(tmp_path):
    arguments = ("--steps=100000", f"--workdir={tmp_path / 'run'}")
    lead, other = start_two(*arguments)
    saved = tmp_path / "run" / "checkpoints"
    deadline = time.monotonic() + 200
    while len(list(saved.glob("[1-9]*0"))) < 1 and time.monotonic() < deadline:
        time.sleep(0.2)
    other.kill()
    other.communicate()
    _, output = lead.communicate(timeout=120)
    assert lead.returncode == 1
    sentence = output.splitlines()[-1]
    assert sentence.startswith("audiodd: error: another process of this run is gone")
    assert "Traceback" not in output
    assert "stack trace" not in output
    last = max(int(path.name) for path in saved.iterdir() if path.name.isdigit())
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["loop"]["steps"] = last + 10
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    # Also on fewer devices: the state does not depend on their number.
    again = start(f"--steps={last + 10}", arguments[1])
    _, output = again.communicate(timeout=300)
    assert again.returncode == 0, output
    assert f"from step {last}" in output


def test_clusters_are_recognised_by_their_variables():
    found = multiprocess.in_cluster
    assert not found({})
    assert not found({"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "1"})
    assert found({"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "4"})
    assert found({"OMPI_COMM_WORLD_SIZE": "2"})
    assert not found({"TPU_WORKER_HOSTNAMES": "localhost"})
    assert found({"TPU_WORKER_HOSTNAMES": "a,b"})


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (("127.0.0.1:1", 2, None), "go together"),
        (
            ("127.0.0.1", 2, 0),
            "--coordinator_address must be HOST:PORT, not '127.0.0.1'",
        ),
        (("127.0.0.1:1", 0, 0), "--num_processes must be at least 1, not 0"),
        (("127.0.0.1:1", 2, 2), "--process_id must be 0 to 1, not 2"),
    ],
)
def test_bad_arguments_are_named(arguments, output):
    with pytest.raises(UserError, match=output):
        multiprocess.join(*arguments)


def test_a_single_process_needs_no_agreement():
    assert multiprocess.is_process_zero()
    assert multiprocess.any_of(15) == 15
    assert multiprocess.from_process_zero(lambda: {"a": 1}) == {"a": 1}
    assert not multiprocess.leaves_others_waiting(UserError())
    assert not multiprocess.lost(ValueError())


def test_a_full_device_is_reported_in_one_sentence(capsys, monkeypatch):
    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(main, "main", full)
    with pytest.raises(SystemExit):
        main.run()
    assert "the device is out of memory" in capsys.readouterr().err
