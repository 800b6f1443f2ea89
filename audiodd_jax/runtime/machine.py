"""Checks of a machine for problems that runs would meet, with advice."""

import locale
import os
import sys
from pathlib import Path

import psutil

from audiodd_jax.runtime import locks, memory, multiprocess
from audiodd_jax.runtime.files import existing, is_writable

_LITTLE_SPACE = 2 << 30
_LITTLE_MEMORY = 2 << 30
# Settings of JAX that runs set by themselves.
_OVERRIDDEN = (
    *("JAX_ENABLE_X64", "JAX_DEFAULT_PRNG_IMPL", "JAX_THREEFRY_PARTITIONABLE"),
    "JAX_DISABLE_JIT",
)
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS")
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def examine(cache: Path, backend: str | None) -> list[tuple[str, str]]:
    """Returns rows of name and finding: memory and cache, and any problems.

    Args:
      cache: folder of downloads and features.
      backend: JAX's platform, or None if it cannot start.
    """
    rows = [("memory", _memory()), ("cache", _cache(cache))]
    if not is_writable(Path("runs")):
        advice = "not writable: pass --workdir with a writable folder"
        rows.append(("current folder", advice))
    if not _has_network():
        advice = (
            "no connection: datasets cannot be downloaded; pass --data_dir with a "
            "copy, or put the archives into the cache's folder downloads"
        )
        rows.append(("network", advice))
    encoding = getattr(sys.stdout, "encoding", None) or locale.getencoding()
    if not _can_encode("±", encoding):
        advice = (
            f"its encoding is {encoding}: other characters are escaped; "
            "PYTHONIOENCODING=utf-8 prints them"
        )
        rows.append(("output", advice))
    return rows + _variables(backend)


def _variables(backend: str | None) -> list[tuple[str, str]]:
    """Returns rows for environment variables that change how runs behave."""
    rows = []
    if multiprocess.in_cluster():
        advice = (
            "a cluster started this process as one of several: audiodd distill joins "
            "them as one run, other commands run in each"
        )
        rows.append(("several processes", advice))
    if names := ", ".join(name for name in _OVERRIDDEN if os.environ.get(name)):
        advice = f"{names}: ignored, so that a run's numbers are the same everywhere"
        rows.append(("JAX's settings", advice))
    limits = [f"{name}={os.environ[name]}" for name in _VISIBLE if name in os.environ]
    if limits:
        advice = f"{', '.join(limits)}: runs and sweeps use these devices only"
        rows.append(("devices' limits", advice))
    is_gpu = backend in ("gpu", "cuda", "rocm")
    if is_gpu and _DETERMINISTIC not in os.environ.get("XLA_FLAGS", ""):
        advice = (
            "resumed runs may differ in the last bits on a GPU; for identical bits set "
            f"XLA_FLAGS={_DETERMINISTIC}"
        )
        rows.append(("same bits", advice))
    return rows


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _memory() -> str:
    """Describes the memory of the machine, and of the job if it has a limit."""
    machine, limit = psutil.virtual_memory(), memory.host_memory()
    text = f"{_gib(machine.available)} of {_gib(machine.total)} available"
    if limit < machine.total:
        text += f"; this job is limited to {_gib(limit)}"
    if min(limit, machine.available) < _LITTLE_MEMORY:
        text += "; low: see audiodd distill --dry_run before a run"
    return text


def _cache(cache: Path) -> str:
    """Describes the cache: free space, whether it can be written and locked."""
    free = psutil.disk_usage(str(existing(cache))).free
    text = f"{cache}, {_gib(free)} free"
    if not is_writable(cache):
        return (
            f"{text}; not writable: set AUDIODD_CACHE, or pass --cache_dir, to a "
            "writable folder"
        )
    if free < _LITTLE_SPACE:
        text += "; free some space before preparing data"
    if not locks.are_supported(existing(cache)):
        text += "; its file system has no locks: start one process at a time"
    return text


def _has_network() -> bool:
    """Returns whether any network interface is up, without using it."""
    try:
        interfaces = psutil.net_if_stats().items()
    except OSError:
        return True
    return any(state.isup and not name.startswith("lo") for name, state in interfaces)


def _can_encode(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeError, LookupError):
        return False
    return True
