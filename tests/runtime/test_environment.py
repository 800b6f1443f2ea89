"""The doctor's checks of a machine."""

import errno
import types

import filelock
import pytest

from audiodd_jax.runtime import environment


@pytest.fixture
def examined(tmp_path):
    """Returns ``examined(backend)``: the doctor's findings by name."""
    return lambda backend="cpu": dict(environment.examine(tmp_path / "cache", backend))


def test_a_sound_machine_has_no_problems(examined, monkeypatch, tmp_path):
    for name in ("CUDA_VISIBLE_DEVICES", "JAX_ENABLE_X64", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    up = types.SimpleNamespace(isup=True)
    monkeypatch.setattr(environment.psutil, "net_if_stats", lambda: {"eth0": up})
    found = examined()
    assert set(found) <= {"memory", "cache", "output"}
    assert "no locks" not in found["cache"]
    assert list(tmp_path.iterdir()) == []


def test_problems_are_named_with_advice(examined, monkeypatch):
    monkeypatch.setattr(environment.memory, "host_memory", lambda: 1 << 30)
    monkeypatch.setattr(environment.files, "is_writable", lambda _: False)
    monkeypatch.setattr(environment.psutil, "net_if_stats", dict)
    monkeypatch.setenv("JAX_DISABLE_JIT", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    found = examined("gpu")
    assert "limited to 1.0 GiB; low" in found["memory"]
    assert "set AUDIODD_CACHE, or pass --cache_dir" in found["cache"]
    assert "pass --workdir" in found["current folder"]
    assert "pass --data_dir" in found["network"]
    assert "one of several" in found["several processes"]
    assert "JAX_DISABLE_JIT: ignored" in found["JAX's settings"]
    assert "CUDA_VISIBLE_DEVICES=2,3" in found["devices' limits"]
    assert "set XLA_FLAGS=--xla_gpu_deterministic_ops=true" in found["same bits"]


def test_a_file_system_without_locks_is_named(examined, monkeypatch):
    def no_locks(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    assert "start one process at a time" in examined()["cache"]
