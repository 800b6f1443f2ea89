"""Software and machine of a run.

Versions, devices and revision are recorded. ``examine`` finds problems of the machine.
"""

import contextlib
import contextvars
import importlib.metadata
import locale
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import psutil

from audiodd_jax.runtime import files, memory, multiprocess
from audiodd_jax.version import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "soundfile")

# JAX's settings that change numbers, which a run records, and their defaults.
_NUMERICS = {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_high_dynamic_range_gumbel": False,
    "jax_default_matmul_precision": None,
    # Without jit the numbers differ, and a run takes hours.
    "jax_disable_jit": False,
}
# Settings that refuse what this package does on purpose, such as masks of infinities.
_STRICTNESS = {
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_legacy_prng_key": "allow",
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_debug_key_reuse": False,
    "jax_check_tracer_leaks": False,
    "jax_transfer_guard": "allow",
    "jax_transfer_guard_host_to_device": "allow",
    "jax_transfer_guard_device_to_device": "allow",
    "jax_transfer_guard_device_to_host": "allow",
}
_is_float64 = contextvars.ContextVar("_is_float64", default=False)
# Bytes of memory or free space that are too few for some runs.
_LITTLE = 2 << 30
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS")
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def describe() -> dict[str, Any]:
    """Returns the versions, devices and revision that a run's numbers depend on."""
    checkout, revision = Path(__file__).parents[2], None
    if (checkout / ".git").exists():
        git = ["git", "-C", checkout, "describe", "--always", "--dirty", "--abbrev=12"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                git, capture_output=True, text=True, timeout=10, check=True
            )
            revision = done.stdout.strip()
    return {
        "audiodd_jax": __version__,
        "revision": revision,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: installed_version(name) for name in PACKAGES},
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "num_processes": jax.process_count(),
        "numerics": numerics(),
        "cpus": os.cpu_count(),
        "command": sys.argv,
    }


def numerics() -> dict[str, Any]:
    """Returns JAX's settings that change a run's numbers."""
    return {n: getattr(jax.config, n, None) for n in (*_NUMERICS, "jax_enable_x64")}


@contextlib.contextmanager
def standard_numerics(float64: bool | None = None) -> Iterator[None]:
    """Makes a block or a function independent of the settings of JAX around it.

    Every public function and every command runs in it. Other threads of the caller keep
    their settings, and threads that compute enter it themselves.

    Args:
      float64: whether arrays are float64 by default; None: as in the enclosing block,
        or False.
    """
    is_wide = _is_float64.get() if float64 is None else float64
    wanted = {**_NUMERICS, **_STRICTNESS, "jax_enable_x64": is_wide}
    with contextlib.ExitStack() as stack:
        stack.callback(_is_float64.reset, _is_float64.set(is_wide))
        for name, value in wanted.items():
            before = getattr(jax.config, name, None)
            # None is the default, or a setting that this version of JAX lacks.
            if before in (value, None):
                continue
            of_thread = getattr(jax, name.removeprefix("jax_"), None)
            if of_thread is not None:
                stack.enter_context(of_thread(value))
            else:
                jax.config.update(name, value)
                stack.callback(jax.config.update, name, before)
        yield


def installed_version(name: str) -> str | None:
    """Returns the version of an installed package, or None."""
    found = importlib.metadata.distributions(name=name)
    return next((package.version for package in found), None)


def examine(cache: Path, backend: str | None) -> list[tuple[str, str]]:
    """Returns rows of name and finding: memory and cache, and any problems.

    ``backend`` is JAX's platform, or None if it cannot start.
    """
    machine, limit = psutil.virtual_memory(), memory.host_memory()
    text = f"{_gib(machine.available)} of {_gib(machine.total)} available"
    if limit < machine.total:
        text += f"; this job is limited to {_gib(limit)}"
    if min(limit, machine.available) < _LITTLE:
        text += "; low: see audiodd distill --dry_run before a run"
    found = {"memory": text, "cache": _cache(cache)}
    if not files.is_writable(Path("runs")):
        found["current folder"] = "not writable: pass --workdir with a writable folder"
    with contextlib.suppress(OSError):
        interfaces = psutil.net_if_stats().items()
        # Without using any of them.
        if all(name.startswith("lo") for name, state in interfaces if state.isup):
            found["network"] = (
                "no connection: datasets cannot be downloaded; pass --data_dir with a "
                "copy, or put the archives into the cache's folder downloads"
            )
    encoding = getattr(sys.stdout, "encoding", None) or locale.getencoding()
    try:
        "±".encode(encoding)
    except (UnicodeError, LookupError):
        found["output"] = (
            f"its encoding is {encoding}: other characters are escaped; "
            "PYTHONIOENCODING=utf-8 prints them"
        )
    return list((found | _variables(backend)).items())


def _variables(backend: str | None) -> dict[str, str]:
    """Returns findings about environment variables that change how runs behave."""
    found = {}
    if multiprocess.in_cluster():
        found["several processes"] = (
            "a cluster started this process as one of several: audiodd distill joins "
            "them as one run, other commands run in each"
        )
    # Runs set them by themselves.
    settings = map(str.upper, ("jax_enable_x64", *_NUMERICS, *_STRICTNESS))
    if names := list(filter(os.environ.get, settings)):
        found["JAX's settings"] = (
            f"{', '.join(names)}: ignored, so that a run's numbers are the same "
            "everywhere"
        )
    limits = [f"{name}={os.environ[name]}" for name in _VISIBLE if name in os.environ]
    if limits:
        found["devices' limits"] = (
            f"{', '.join(limits)}: runs and sweeps use these devices only"
        )
    is_gpu = backend in ("gpu", "cuda", "rocm")
    if is_gpu and _DETERMINISTIC not in os.environ.get("XLA_FLAGS", ""):
        found["same bits"] = (
            "resumed runs may differ in the last bits on a GPU; for identical bits set "
            f"XLA_FLAGS={_DETERMINISTIC}"
        )
    return found


def _cache(cache: Path) -> str:
    """Describes the cache: free space, whether it can be written and locked."""
    free = psutil.disk_usage(str(files.existing(cache))).free
    text = f"{cache}, {_gib(free)} free"
    if not files.is_writable(cache):
        return (
            f"{text}; not writable: set AUDIODD_CACHE, or pass --cache_dir, to a "
            "writable folder"
        )
    if free < _LITTLE:
        text += "; free some space before preparing data"
    if not files.has_locks(files.existing(cache)):
        text += "; its file system has no locks: start one process at a time"
    return text


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
