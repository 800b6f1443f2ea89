"""A sweep on this machine: one run at a time, or one per device."""

import collections
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from audiodd_jax.sweep import run_process
from audiodd_jax.sweep.plan import Planned
from audiodd_jax.sweep.run_process import Attempt, Sweep

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
    """Returns JAX's platform and number of devices, queried in another process.

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
    """Returns the environment variables of each of the concurrent runs.

    Args:
      platform: JAX's platform.
      count: number of the machine's devices.
      jobs: number of concurrent runs; 0: as many as the devices allow, one on CPU.
    """
    if platform not in _VISIBLE:
        return [{}] * max(1, jobs)
    environments = []
    for first in range(0, count - devices_per_run + 1, devices_per_run):
        indices = range(first, first + devices_per_run)
        slot = {name: _visible(name, indices) for name in _VISIBLE[platform]}
        if platform == "tpu":
            slot |= _ALONE.get(devices_per_run, {})
        environments.append(slot)
    return environments[: jobs or None] or [{}]


def _visible(variable: str, indices: Sequence[int]) -> str:
    """Lists a run's devices, chosen from those that this process may use."""
    names = [name for name in os.environ.get(variable, "").split(",") if name.strip()]
    if len(names) > max(indices):
        return ",".join(names[i] for i in indices)
    return ",".join(map(str, indices))


def run(
    plans: Sequence[Planned],
    sweep: Sweep,
    environments: Sequence[dict[str, str]],
    update: Callable[[], None],
    stop_signal: Callable[[], int],
) -> None:
    """Runs all plans in order, as many at a time as there are environments.

    Args:
      environments: variables of each of the concurrent runs.
      update: shows the runs' states; called repeatedly.
      stop_signal: returns the signal that arrived, or 0; a signal stops all runs.
    """
    waiting, free = list(plans), list(environments)
    running: list[Attempt] = []
    starts: collections.Counter[str] = collections.Counter()
    while waiting or running:
        if stop_signal():
            waiting.clear()
            for attempt in running:
                attempt.stop()
        while waiting and free:
            plan = waiting.pop(0)
            run_process.wait_until_free(sweep.workdir / plan.name, stop_signal)
            starts[plan.name] += 1
            running.append(Attempt(plan, sweep, free.pop(0)))
        for attempt in list(running):
            event = attempt.poll()
            if event is None:
                continue
            running.remove(attempt)
            free.append(attempt.environment)
            can_retry = starts[attempt.plan.name] <= sweep.retries
            if event == "killed" and can_retry and not stop_signal():
                waiting.insert(0, attempt.plan)
        update()
        time.sleep(0.1)
