"""Device memory: total and peak."""

import contextlib
import re
import resource
import sys
from pathlib import Path

import jax
import psutil

# Fraction of a device's memory that plans may use. Accelerators' compilers take up to a
# quarter more than predicted (experiments/RESULTS.md), and their runtimes some.
_MEMORY_SHARE = {"cpu": 0.6, "other": 0.75}


def memory_of(device: jax.Device) -> int:
    """Bytes of memory of a device, or its share of the host's memory."""
    known = device.memory_stats() if device.platform != "cpu" else None
    if known and "bytes_limit" in known:
        return known["bytes_limit"]
    return host_memory() // max(1, jax.local_device_count())


def host_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its job's.

    Total, not free memory: a resumed run must find the same plan.
    """
    return min([psutil.virtual_memory().total, *_cgroup_limits()])


def _cgroup_limits(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> list[int]:
    """Memory limits of this process's control groups (versions 1 and 2) in bytes."""
    folders = [root, root / "memory"]
    for line in own.read_text().splitlines() if own.exists() else ():
        _, controllers, path = line.split(":", 2)
        base = root / "memory" if "memory" in controllers.split(",") else root
        parts = Path(path).parts[1:]
        folders += [base.joinpath(*parts[: i + 1]) for i in range(len(parts))]
    found = []
    for folder in folders:
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                found.append(int((folder / name).read_text()))
    return found


def memory_share(platform: str) -> float:
    """Fraction of a device's memory that plans may use."""
    return _MEMORY_SHARE["cpu" if platform == "cpu" else "other"]


def peak_bytes() -> int:
    """Peak memory so far, of a device or, on CPU, of this process."""
    device = jax.local_devices()[0]
    known = device.memory_stats() if device.platform != "cpu" else None
    if known and "peak_bytes_in_use" in known:
        return known["peak_bytes_in_use"]
    status = Path("/proc/self/status")  # Linux; getrusage would include the parent's
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return int(found[1]) << 10
    scale = 1 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
