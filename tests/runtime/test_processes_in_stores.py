"""Two processes with a home and a cache each share a run in an object store."""

import os
import time

import numpy as np
import pytest
import stores
import test_processes

from audiodd_jax.coreset.file import load_coreset
from audiodd_jax.runtime.object_store import Bucket

pytestmark = [pytest.mark.slow, pytest.mark.nightly]


def start_two(store, homes, *arguments):
    """Starts two processes on what could be two machines."""
    own = iter(homes)
    popen = test_processes.subprocess.Popen

    def on_its_machine(argv, *, env, **options):
        home = next(own)
        env = {**env, **store.variables, "HOME": str(home)}
        for name in ("AUDIODD_CACHE", "XDG_CACHE_HOME"):
            env.pop(name, None)
        return popen(argv, env=env, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_processes.subprocess, "Popen", on_its_machine)
        return test_processes.start_two(*arguments)


def finish(processes):
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return outputs


@pytest.mark.parametrize("victim", [0, 1])
def test_two_hosts_share_a_run(tmp_path, monkeypatch, victim):
    """Either is lost; two new ones with empty disks continue the run."""
    monkeypatch.setenv("AUDIODD_LEASE_SECONDS", "3")
    homes = [tmp_path / name for name in "abcdef"]
    with stores.serving("s3") as store:
        for name, value in store.variables.items():
            monkeypatch.setenv(name, value)
        whole = ("--steps=40", f"--workdir={store.url}/whole")
        finish(start_two(store, homes[:2], *whole))
        arguments = ("--steps=40", f"--workdir={store.url}/run")
        both = start_two(store, homes[2:4], *arguments)
        bucket, deadline = Bucket(*store.url.split("://")), time.monotonic() + 200
        while time.monotonic() < deadline:
            if "run/checkpoints/10.zip" in bucket.listed("run/"):
                break
            time.sleep(0.05)
        both[victim].kill()
        for process in both:
            process.communicate(timeout=120)
        outputs = finish(start_two(store, homes[4:], *arguments))
        assert "from step" in outputs[0][1]
        # Process 0 alone wrote the run, and the other one has no folder of it.
        assert not list(homes[5].rglob("metrics.jsonl"))
        monkeypatch.setenv("AUDIODD_MIRRORS", str(tmp_path / "reader"))
        coresets = [
            load_coreset(f"{store.url}/{name}/coreset.npz") for name in ("whole", "run")
        ]
    np.testing.assert_array_equal(*(one.images for one in coresets))
    assert os.listdir(homes[4])
