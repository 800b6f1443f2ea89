"""A sweep on this machine: one run at a time, or one per device."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from audiodd_jax.sweep import run_process
from audiodd_jax.sweep.plan import Planned
from audiodd_jax.sweep.run_process import Attempt

# Variables that select a machine's accelerators, by JAX's platform.
_VISIBLE = {
    "gpu": ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
    "tpu": ("TPU_VISIBLE_CHIPS",),
}
# Further variables of a TPU process that has some of a host's chips.
_ALONE = {
    1: {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"},
    2: {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,2,1", "TPU_PROCESS_BOUNDS": "1,1,1"},
    4: {"TPU_CHIPS_PER_PROCESS_BOUNDS": "2,2,1", "TPU_PROCESS_BOUNDS": "1,1,1"},
}


def devices() -> tuple[str, int]:
    """JAX's platform and number of devices, found by another process.

    This process must not occupy the accelerators, which the runs need.
    """
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return "cpu", 1
    code = "import jax; print(jax.default_backend(), jax.local_device_count())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    platform, count = done.stdout.split()[-2:]
    return platform, int(count)


def slots(
    platform: str, count: int, jobs: int, devices_per_run: int
) -> list[dict[str, str]]:
    """Environment variables of each of the concurrent runs.

    Args:
      platform: JAX's platform.
      count: devices of the machine.
      jobs: runs at a time; 0: as many as the devices allow, and one on CPU.
      devices_per_run: accelerators per run.
    """
    if platform not in _VISIBLE:
        return [{}] * max(1, jobs)
    found = []
    for first in range(0, count - devices_per_run + 1, devices_per_run):
        own = range(first, first + devices_per_run)
        slot = {name: _visible(name, own) for name in _VISIBLE[platform]}
        if platform == "tpu":
            slot |= _ALONE.get(devices_per_run, {})
        found.append(slot)
    return found[: jobs or None] or [{}]


def _visible(variable: str, own: Sequence[int]) -> str:
    """Devices of a run, from those that this process may use."""
    names = [name for name in os.environ.get(variable, "").split(",") if name.strip()]
    if len(names) > max(own):
        return ",".join(names[i] for i in own)
    return ",".join(map(str, own))


def run(
    plans: Sequence[Planned],
    workdir: Path,
    folder: Path,
    environments: Sequence[dict[str, str]],
    retries: int,
    show: Callable[[], None],
    stopping: Callable[[], int],
) -> None:
    """Runs all, as many at a time as there are environments.

    Args:
      plans: the runs, in the order of their start.
      workdir: of the sweep.
      folder: working directory, to which relative paths in the flags refer.
      environments: of the concurrent runs.
      retries: of a killed run.
      show: called repeatedly.
      stopping: the signal that arrived, or 0; running processes are then stopped.
    """
    waiting = list(plans)
    tries = {plan.name: 0 for plan in plans}
    free, running = list(range(len(environments))), {}
    while waiting or running:
        if stopping():
            waiting.clear()
            for attempt in running.values():
                attempt.stop()
        while waiting and free:
            plan, slot = waiting.pop(0), free.pop(0)
            run_process.wait_until_free(workdir / plan.name, stopping)
            tries[plan.name] += 1
            running[slot] = Attempt(plan, workdir, folder, environments[slot])
        for slot, attempt in list(running.items()):
            event = attempt.poll()
            if event is None:
                continue
            del running[slot]
            free.append(slot)
            retry = event == "killed" and tries[attempt.plan.name] <= retries
            if retry and not stopping():
                waiting.insert(0, attempt.plan)
        show()
        time.sleep(0.1)
