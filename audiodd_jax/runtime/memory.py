"""Device memory: total and peak."""

import contextlib
import re
import resource
import sys
from pathlib import Path

import jax
import psutil


def _stat(device: jax.Device, name: str) -> int | None:
    """Returns a number of an accelerator's memory statistics, if it has them."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    return (stats or {}).get(name)


def memory_of(device: jax.Device) -> int:
    """Returns the bytes of memory of a device, or its share of the host's memory."""
    limit = _stat(device, "bytes_limit")
    return limit or host_memory() // max(1, jax.local_device_count())


def host_memory() -> int:
    """Returns the bytes of memory that this process may use, on the machine or its job.

    Total, not free memory: a resumed run must find the same plan.
    """
    return min([psutil.virtual_memory().total, *_cgroup_limits()])


def _cgroup_limits(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> list[int]:
    """Returns the limits of this process's control groups (versions 1, 2) in bytes."""
    folders = [root, root / "memory"]
    for line in own.read_text().splitlines() if own.exists() else ():
        _, controllers, path = line.split(":", 2)
        base = root / "memory" if "memory" in controllers.split(",") else root
        parts = Path(path).parts[1:]
        folders += [base.joinpath(*parts[: i + 1]) for i in range(len(parts))]
    limits = []
    for folder in folders:
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text()))
    return limits


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
    if status.exists():
        peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if peak:
            return int(peak[1]) << 10
    scale = 1 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
