"""Memory of devices, and row-wise functions in chunks, so that it does not grow."""

import contextlib
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import psutil
from jax import lax
from jaxtyping import Array, Shaped


def _stat(device: jax.Device, name: str) -> int | None:
    """Returns a number of an accelerator's memory statistics, if it has them."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    return (stats or {}).get(name)


def memory_of(device: jax.Device) -> int:
    """Returns the bytes of memory of a device, or its share of the host's memory."""
    limit = _stat(device, "bytes_limit")
    return limit or host_memory() // max(1, jax.local_device_count())


def host_memory(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> int:
    """Returns the bytes of memory that this process may use, on the machine or its job.

    A job is limited by control groups (versions 1 and 2) under ``root``, listed in
    ``own``. Total, not free memory: a resumed run must find the same plan.
    """
    folders = [root, root / "memory"]
    for line in own.read_text().splitlines() if own.exists() else ():
        _, controllers, path = line.split(":", 2)
        base = root / "memory" if "memory" in controllers.split(",") else root
        parts = Path(path).parts[1:]
        folders += [base.joinpath(*parts[: i + 1]) for i in range(len(parts))]
    limits = [psutil.virtual_memory().total]
    for folder in folders:
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text()))
    return min(limits)


def memory_share(platform: str) -> float:
    """Returns the fraction of a device's memory that plans may use."""
    # Accelerators' compilers take up to a quarter more than predicted
    # (experiments/results/accelerators.md), and their runtimes need some memory too.
    return 0.6 if platform == "cpu" else 0.75


def peak_bytes() -> int:
    """Returns the peak memory of a device or, on CPU, of this process, in bytes."""
    if peak := _stat(jax.local_devices()[0], "peak_bytes_in_use"):
        return peak
    status = Path("/proc/self/status")  # Linux; getrusage would include the parent's
    text = status.read_text() if status.exists() else ""
    if peak := re.search(r"VmHWM:\s+(\d+) kB", text):
        return int(peak[1]) << 10
    scale = 1 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def balanced(rows: int, most: int) -> int:
    """Returns the rows per chunk, at most ``most``, for chunks of nearly equal size."""
    return -(-rows // -(-rows // max(1, most)))


def in_chunks(
    f: Callable[[Array], Any], x: Shaped[Array, "b *rest"], chunk: int
) -> Any:
    """Computes ``f(x)``, each row of which depends on that row only, in chunks of rows.

    ``chunk`` 0: all at once. The last chunk is padded with zeros and their results are
    dropped, so that ``f`` is compiled once.
    """
    b = x.shape[0]
    if chunk <= 0 or chunk >= b:
        return f(x)
    size = balanced(b, chunk)
    count = -(-b // size)
    pad = [(0, count * size - b)] + [(0, 0)] * (x.ndim - 1)
    if pad[0][1]:
        x = jnp.pad(x, pad)
    parts = lax.map(f, x.reshape(count, size, *x.shape[1:]))
    return jax.tree.map(lambda y: y.reshape(count * size, *y.shape[2:])[:b], parts)
