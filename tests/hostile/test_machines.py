"""Restricted machines give the right result or one sentence of refusal.

The restrictions are another user without a home, read-only folders, no network and a
job's memory limit. They need the rights of root, and are skipped without them.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import TINY_SELECTION as TINY

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).parents[2]
GIGABYTE = 1 << 30

# A user who owns nothing, but may read the interpreter wherever it is installed.
NOBODY = [
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
]
OFFLINE = ["unshare", "--net"]
# A checkout that cannot be written.
READ_ONLY = [
    *("unshare", "--mount", "sh", "-c"),
    'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && cd "$0" && exec "$@"',
    str(REPOSITORY),
]
# The files of a control group that may use a gigabyte.
LIMITED = [
    *("unshare", "--mount", "sh", "-c"),
    "mount -t tmpfs none /sys/fs/cgroup && "
    f'echo {GIGABYTE} >/sys/fs/cgroup/memory.max && exec "$@"',
    "sh",
]


def audiodd(machine, *arguments, cwd=None, **environment):
    """Returns the exit code and output of the command line on such a machine.

    Environment variables with the value None are removed.
    """
    variables = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        **environment,
    }
    done = subprocess.run(
        [*machine, sys.executable, "-m", "audiodd_jax", *map(str, arguments)],
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert done.stderr.count("audiodd: error: ") == 1
    return done.returncode, done.stdout + done.stderr


def possible(machine):
    """Skips the test if such a machine cannot be simulated here."""
    try:
        made = subprocess.run([*machine, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip(f"no {machine[0]} on this machine")
    if made.returncode:
        pytest.skip(f"{machine[0]} is not allowed: {made.stderr.strip()}")


HOMELESS = {"HOME": "/nonexistent", "AUDIODD_CACHE": None, "XDG_CACHE_HOME": None}
# These runs compare machines, not speed.
FAST = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Returns a folder that every user may write, with a run and a cache by root."""
    folder = tmp_path_factory.mktemp("machines")
    folder.chmod(0o777)
    cache = {"AUDIODD_CACHE": str(folder / "cache")}
    command = ["distill", *TINY, f"--workdir={folder / 'whole'}"]
    code, text = audiodd([], *command, **cache, **FAST)
    assert code == 0, text
    return folder


def same_coreset(place, run):
    """Returns whether a run has the same coreset as root's run."""
    ours, expected = (place / name / "coreset.npz" for name in (run, "whole"))
    return ours.read_bytes() == expected.read_bytes()


def test_another_user_without_a_home(place):
    possible(NOBODY)
    command = ["distill", *TINY, f"--workdir={place / 'homeless'}"]
    code, text = audiodd(NOBODY, *command, **HOMELESS)
    assert code == 1
    assert "/nonexistent/.cache/audiodd_jax cannot be written (Permission" in text
    assert "set AUDIODD_CACHE, or pass --cache_dir" in text
    # Existing features are read from a cache that only root may write.
    cache = f"--cache_dir={place / 'cache'}"
    code, text = audiodd(NOBODY, *command, cache, **HOMELESS, **FAST)
    assert code == 0, text
    assert same_coreset(place, "homeless")


def test_folders_that_this_user_may_not_write(place):
    possible(NOBODY)
    command = ["distill", *TINY, f"--cache_dir={place / 'cache'}"]
    other = ["--config.features.n_mels=12", f"--workdir={place / 'other'}"]
    code, text = audiodd(NOBODY, *command, *other)
    assert code == 1
    assert f"the cache {place / 'cache'} cannot be written" in text
    code, text = audiodd(NOBODY, *command, f"--workdir={place / 'whole'}")
    assert code == 1
    assert f"the run directory {place / 'whole'} cannot be written" in text


def test_a_read_only_checkout(place):
    possible(READ_ONLY)
    command = ["distill", *TINY, f"--cache_dir={place / 'cache'}"]
    code, text = audiodd(READ_ONLY, *command)
    assert code == 1
    assert (
        "the run directory runs/tones-random-1-seed0 cannot be written (Read-" in text
    )
    assert "choose another --workdir" in text
    run = f"--workdir={place / 'elsewhere'}"
    code, text = audiodd(READ_ONLY, *command, run, **FAST)
    assert code == 0, text
    assert same_coreset(place, "elsewhere")


def test_the_memory_limit_of_a_task():
    possible(LIMITED)
    large = ["--samples_per_class=180", "--config.network.width=1024", "--dry_run"]
    code, text = audiodd(LIMITED, "distill", "--dataset=tones", *large)
    assert code == 0
    assert "of 1.1 GB per device; that is MORE than available" in text


def test_no_network(tmp_path):
    possible(OFFLINE)
    cache = f"--cache_dir={tmp_path}"
    code, text = audiodd(OFFLINE, "prepare", "--dataset=spoken_digit", cache)
    assert code == 1
    assert "could not be downloaded" in text
    assert "--data_dir" in text


def test_the_doctor_names_all_faults():
    """The machine has all these faults at once."""
    machine = [*LIMITED, *OFFLINE, *NOBODY]
    possible(machine)
    code, text = audiodd(
        machine,
        "doctor",
        cwd="/",
        **HOMELESS,
        PYTHONIOENCODING="ascii",
        JAX_ENABLE_X64="1",
        JAX_PLATFORMS="cpu,foo",
        SLURM_STEP_NUM_TASKS="2",
        CUDA_VISIBLE_DEVICES="2,3",
    )
    assert code == 0
    for words in (
        "JAX finds none",
        "set JAX_PLATFORMS=cpu",
        "this job is limited to 1.0 GiB",
        "not writable: set AUDIODD_CACHE",
        "not writable: pass --workdir",
        "datasets cannot be downloaded; pass --data_dir",
        "PYTHONIOENCODING=utf-8",
        "started this process as one of several",
        "JAX_ENABLE_X64: ignored",
        "CUDA_VISIBLE_DEVICES=2,3: runs and sweeps use these",
    ):
        assert words in text, words
