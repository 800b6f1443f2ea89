"""What a machine lacks, or has set, that runs would meet; with advice."""

import locale
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import filelock
import psutil

from audiodd_jax.runtime import memory, multiprocess
from audiodd_jax.runtime.files import existing, is_writable

_LITTLE_SPACE = 2 << 30
_LITTLE_MEMORY = 2 << 30
# Settings of JAX that runs set by themselves.
_OVERRIDDEN = (
    *("JAX_ENABLE_X64", "JAX_DEFAULT_PRNG_IMPL", "JAX_THREEFRY_PARTITIONABLE"),
    "JAX_DISABLE_JIT",
)
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def examine(cache: Path, backend: str | None) -> list[tuple[str, str]]:
    """Rows of name and finding; what is as it should be has a row for memory and cache.

    Args:
      cache: folder of downloads and features.
      backend: JAX's platform, or None if it cannot start.
    """
    rows = [("memory", _memory()), ("cache", _cache(cache))]
    found = {
        "current folder": _current_folder(),
        "network": _network(),
        "output": _output(),
        "several processes": _several(os.environ),
        "JAX's settings": _overridden(os.environ),
        "devices' limits": _visible(os.environ),
        "same bits": _same_bits(os.environ, backend),
    }
    return rows + [(name, text) for name, text in found.items() if text]


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _memory() -> str:
    """Memory of the machine, and of the job if it has a limit."""
    machine, own = psutil.virtual_memory(), memory.host_memory()
    text = f"{_gib(machine.available)} of {_gib(machine.total)} available"
    if own < machine.total:
        text += f"; this job is limited to {_gib(own)}"
    if min(own, machine.available) < _LITTLE_MEMORY:
        text += "; little: see audiodd distill --dry_run before a run"
    return text


def _cache(cache: Path) -> str:
    """Whether the cache can be written and locked, and its free space."""
    free = psutil.disk_usage(str(existing(cache))).free
    text = f"{cache}, {_gib(free)} free"
    if not is_writable(cache):
        return (
            f"{text}; it cannot be written: set AUDIODD_CACHE, or pass --cache_dir, to "
            "a folder that can be"
        )
    if free < _LITTLE_SPACE:
        text += "; free some space before preparing data"
    if not _has_locks(existing(cache)):
        text += "; its file system has no locks: start one process at a time"
    return text


def _has_locks(folder: Path) -> bool:
    lock = filelock.FileLock(folder / f".doctor-{os.getpid()}")
    try:
        lock.acquire(blocking=False)
    except (OSError, filelock.Timeout):
        return False
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
    return True


def _current_folder() -> str:
    if is_writable(Path("runs")):
        return ""
    return "it cannot be written: pass --workdir, a folder that can be"


def _network() -> str:
    """Whether there is any network, without using it."""
    try:
        others = [
            name
            for name, state in psutil.net_if_stats().items()
            if state.isup and not name.startswith("lo")
        ]
    except OSError:
        return ""
    if others:
        return ""
    return (
        "there is none: datasets cannot be downloaded; pass --data_dir with a copy, or "
        "put the archives into the cache's folder downloads"
    )


def _output() -> str:
    encoding = getattr(sys.stdout, "encoding", None) or locale.getencoding()
    try:
        "±".encode(encoding)
    except (UnicodeError, LookupError):
        return (
            f"its encoding is {encoding}: other characters are spelt out; "
            "PYTHONIOENCODING=utf-8 prints them"
        )
    return ""


def _several(environment: Mapping[str, str]) -> str:
    if not multiprocess.found_by_jax(environment):
        return ""
    return (
        "a cluster started this process as one of several: audiodd distill joins them "
        "as one run, other commands run in each"
    )


def _overridden(environment: Mapping[str, str]) -> str:
    found = [name for name in _OVERRIDDEN if environment.get(name)]
    if not found:
        return ""
    return (
        f"{', '.join(found)}: not heeded by runs, so that their numbers are the "
        "same everywhere"
    )


def _visible(environment: Mapping[str, str]) -> str:
    names = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS")
    found = [f"{name}={environment[name]}" for name in names if name in environment]
    if not found:
        return ""
    return f"{', '.join(found)}: runs and sweeps use these devices only"


def _same_bits(environment: Mapping[str, str], backend: str | None) -> str:
    flags = environment.get("XLA_FLAGS", "")
    if backend not in ("gpu", "cuda", "rocm") or _DETERMINISTIC in flags:
        return ""
    return (
        "a resumed run may differ in the last bits on a GPU: set "
        f"XLA_FLAGS={_DETERMINISTIC} if it must not"
    )
