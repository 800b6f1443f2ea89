"""Runs of a sweep on this machine: each is a process, one at a time or one per device.

A run's crash, memory and devices are its own.
"""

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

from audiodd_jax.config.user_paths import local
from audiodd_jax.runtime import mirror, multiprocess, signals
from audiodd_jax.runtime.files import hold
from audiodd_jax.sweep import status
from audiodd_jax.sweep.plan import Planned
from audiodd_jax.sweep.status import Sweep

# Variables that select a machine's accelerators, by JAX's platform.
_VISIBLE = {
    "gpu": ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
    "tpu": ("TPU_VISIBLE_CHIPS",),
}
# Bounds of a TPU process that has 1, 2 or 4 of a host's chips.
_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1"}
# Seconds in which a process whose parent died must release its run directory.
_PATIENCE = 120.0
_PREFIX = "audiodd: error: "


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
    backend, count = done.stdout.split()[-2:]
    return backend, int(count)


def slots(
    backend: str, count: int, jobs: int, devices_per_run: int
) -> list[dict[str, str]]:
    """Returns the environment variables of each of the concurrent runs.

    Args:
      count: number of the machine's devices.
      jobs: number of concurrent runs; 0: as many as the devices allow, one on CPU.
    """
    if backend not in _VISIBLE:
        return [{}] * max(1, jobs)
    environments = []
    for first in range(0, count - devices_per_run + 1, devices_per_run):
        slot = {}
        for variable in _VISIBLE[backend]:
            # Of the devices that this process may use.
            names = os.environ.get(variable, "").split(",")
            names = [name for name in names if name.strip()]
            if len(names) < first + devices_per_run:
                names = list(map(str, range(count)))
            slot[variable] = ",".join(names[first : first + devices_per_run])
        if backend == "tpu" and devices_per_run in _BOUNDS:
            slot["TPU_CHIPS_PER_PROCESS_BOUNDS"] = _BOUNDS[devices_per_run]
            slot["TPU_PROCESS_BOUNDS"] = "1,1,1"
        environments.append(slot)
    return environments[: jobs or None] or [{}]


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
    free: SimpleQueue[dict[str, str]] = SimpleQueue()
    for environment in environments:
        free.put(environment)
    stopping = Event()

    def work(plan: Planned) -> None:
        environment = free.get()
        try:
            perform(plan, sweep, environment, stopping.is_set)
        finally:
            free.put(environment)

    with futures.ThreadPoolExecutor(len(environments)) as pool:
        waiting = {pool.submit(work, plan) for plan in plans}
        try:
            while waiting:
                if stop_signal():
                    stopping.set()
                done, waiting = futures.wait(waiting, timeout=0.1)
                for finished in done:
                    finished.result()
                update()
        finally:
            stopping.set()


def perform(
    plan: Planned,
    sweep: Sweep,
    environment: Mapping[str, str],
    is_stopping: Callable[[], bool] = lambda: False,
) -> list[dict[str, Any]]:
    """Runs one run to its end, also as a cluster's task; the outcome is in the record.

    A finished run is skipped, an interrupted one resumes, and a killed one is retried.
    ``environment`` adds to this process's variables. Where a sweep is in an object
    store, another machine has a record of its own, whose new rows are returned.
    """
    if url := mirror.url_of(sweep.workdir):
        sweep = sweep._replace(workdir=local(url))
    rows = status.new_rows(sweep.workdir)
    _perform(plan, sweep, environment, is_stopping)
    return rows()


def _perform(
    plan: Planned,
    sweep: Sweep,
    environment: Mapping[str, str],
    is_stopping: Callable[[], bool],
) -> None:
    # When a worker is killed, its run's process takes a moment to notice.
    lock, until = sweep.workdir / plan.name / ".lock", time.monotonic() + _PATIENCE
    while lock.exists() and time.monotonic() < until and not is_stopping():
        if held := hold(lock):
            held.release()
            break
        time.sleep(0.2)
    event = "killed"
    while event == "killed" and not is_stopping():
        (state,) = status.read([plan], sweep.workdir)
        if state.tries > sweep.retries or status.is_finished(sweep.workdir, plan):
            return
        event = _attempt(plan, sweep, environment, is_stopping)


def _attempt(
    plan: Planned,
    sweep: Sweep,
    environment: Mapping[str, str],
    is_stopping: Callable[[], bool],
) -> str:
    """Runs a process to its end; SIGTERM makes it save its state. Returns the event."""
    began, host = time.monotonic(), platform.node()
    log = sweep.workdir / status.LOGS / f"{plan.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    status.record(sweep.workdir, plan.name, "started", host=host, flags=plan.flags)
    workdir = f"--workdir={sweep.workdir / plan.name}"
    with log.open("a") as file:
        begin = file.tell()
        process = subprocess.Popen(
            signals.child_command([plan.command, *plan.flags, workdir]),
            cwd=sweep.folder,
            env={
                **multiprocess.without_cluster(os.environ),
                **signals.child_variables(),
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        while process.poll() is None and not is_stopping():
            time.sleep(0.1)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        while (code := process.poll()) is None:
            time.sleep(0.1)
        is_finished = status.is_finished(sweep.workdir, plan)
        event, reason = ("finished", "") if is_finished else _ended(code, log, begin)
        seconds = round(time.monotonic() - began, 1)
        status.record(sweep.workdir, plan.name, event, reason=reason, seconds=seconds)
    return event


def _ended(code: int, log: Path, begin: int) -> tuple[str, str]:
    """Returns the event and its reason for the exit code of a run without a result."""
    if code - 128 in signals.SIGNALS:
        return "cut", "interrupted; its state is saved"
    if code < 0:
        return "killed", f"killed by signal {-code}"
    with log.open(errors="replace") as file:
        file.seek(begin)
        lines = [line.strip() for line in file if line.strip()]
    errors = [line for line in lines if line.startswith(_PREFIX)] or lines
    reason = errors[-1].removeprefix(_PREFIX) if errors else f"exit code {code}"
    return "failed", reason
