"""Device memory: total and peak."""

import re
import resource
import sys
from pathlib import Path

import jax
import psutil

# Fraction of a device's memory that plans may use.
_MEMORY_SHARE = {"cpu": 0.6, "other": 0.9}


def memory_of(device: jax.Device) -> int:
    """Bytes of memory of a device, or its share of the host's memory."""
    known = device.memory_stats() if device.platform != "cpu" else None
    if known and "bytes_limit" in known:
        return known["bytes_limit"]
    # Total, not free memory: a resumed run must find the same plan.
    total = psutil.virtual_memory().total
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    if limit.exists() and limit.read_text().strip().isdigit():
        total = min(total, int(limit.read_text()))
    return total // max(1, jax.local_device_count())


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
