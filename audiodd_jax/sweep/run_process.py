"""One attempt at a run of a sweep: its process, and the record of how it ended."""

import json
import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from audiodd_jax.runtime import multiprocess, signals, supervisor
from audiodd_jax.runtime.files import read_rows
from audiodd_jax.runtime.locks import hold
from audiodd_jax.sweep.plan import Planned

RECORD = "sweep.jsonl"
LOGS = "logs"
# Seconds in which a process whose parent died must release its run directory.
_PATIENCE = 120.0
_PREFIX = "audiodd: error: "


class Sweep(NamedTuple):
    """Where a sweep runs, and how often it retries.

    Attributes:
      workdir: holds the run directories and the sweep's record; the nodes of a cluster
        share it.
      folder: the runs' working directory, to which relative paths in flags refer.
      retries: number of restarts of a killed run.
    """

    workdir: Path
    folder: Path
    retries: int


def record(workdir: Path, run: str, event: str, **more: Any) -> None:
    """Appends an event of a run to the sweep's record."""
    row = {"time": round(time.time(), 2), "run": run, "event": event, **more}
    with (workdir / RECORD).open("a") as file:
        file.write(json.dumps(row) + "\n")


def _attempts(workdir: Path, run: str) -> int:
    """Counts the processes that any worker started for a run since it was queued."""
    count = 0
    for row in read_rows(workdir / RECORD, "run", "event", skip=True):
        if row["run"] == run:
            count = {"queued": 0, "started": count + 1}.get(row["event"], count)
    return count


def is_finished(workdir: Path, plan: Planned) -> bool:
    """Returns whether the run has a result."""
    return (workdir / plan.name / "result.json").exists()


class Attempt:
    """A process that runs one run of a sweep."""

    def __init__(
        self, plan: Planned, sweep: Sweep, environment: Mapping[str, str] | None = None
    ):
        """Starts the process, which resumes an interrupted run.

        Args:
          environment: variables in addition to this process's.
        """
        self.plan, self.environment = plan, environment or {}
        self._workdir = sweep.workdir
        self._began, self._is_stopping = time.monotonic(), False
        self._log = sweep.workdir / LOGS / f"{plan.name}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        record(
            sweep.workdir, plan.name, "started", host=platform.node(), flags=plan.flags
        )
        workdir = f"--workdir={sweep.workdir / plan.name}"
        with self._log.open("a") as log:
            self._begin = log.tell()
            self._process = subprocess.Popen(
                supervisor.child_command([plan.command, *plan.flags, workdir]),
                cwd=sweep.folder,
                env={
                    **multiprocess.without_cluster(os.environ),
                    **supervisor.child_variables(),
                    **self.environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def poll(self) -> str | None:
        """Returns how the process ended, or None while it runs.

        ``finished``, ``failed``, ``cut`` (interrupted) or ``killed``.
        """
        code = self._process.poll()
        if code is None:
            return None
        seconds = round(time.monotonic() - self._began, 1)
        event, reason = self._ended(code)
        record(self._workdir, self.plan.name, event, reason=reason, seconds=seconds)
        return event

    def _ended(self, code: int) -> tuple[str, str]:
        """Returns the event and its reason for an exit code."""
        if is_finished(self._workdir, self.plan):
            return "finished", ""
        if code - 128 in signals.SIGNALS:
            return "cut", "interrupted; its state is saved"
        if code < 0:
            return "killed", f"killed by signal {-code}"
        with self._log.open(errors="replace") as log:
            log.seek(self._begin)
            lines = [line.strip() for line in log if line.strip()]
        errors = [line for line in lines if line.startswith(_PREFIX)] or lines
        reason = errors[-1].removeprefix(_PREFIX) if errors else f"exit code {code}"
        return "failed", reason

    def stop(self) -> None:
        """Sends SIGTERM, once: the process saves its state and ends."""
        if self._process.poll() is None and not self._is_stopping:
            self._is_stopping = True
            self._process.send_signal(signal.SIGTERM)


def wait_until_free(
    directory: Path, stop_signal: Callable[[], int] = lambda: 0
) -> None:
    """Waits until no process holds a run directory, up to a time limit.

    When a worker is killed, its run's process takes a moment to notice.

    Args:
      stop_signal: returns a signal that ends the wait, or 0.
    """
    path, until = directory / ".lock", time.monotonic() + _PATIENCE
    while path.exists() and time.monotonic() < until and not stop_signal():
        if lock := hold(path):
            lock.release()
            return
        time.sleep(0.2)


def perform(
    plan: Planned, sweep: Sweep, environment: Mapping[str, str] | None = None
) -> None:
    """Runs one run to its end, as the body of a cluster task.

    A finished run is skipped, and a killed one is retried. The outcome is in the
    sweep's record.

    Args:
      environment: variables in addition to this process's.
    """
    wait_until_free(sweep.workdir / plan.name)
    while _attempts(sweep.workdir, plan.name) <= sweep.retries:
        if is_finished(sweep.workdir, plan):
            return
        attempt = Attempt(plan, sweep, environment)
        try:
            while (event := attempt.poll()) is None:
                time.sleep(0.2)
        except BaseException:
            attempt.stop()
            while attempt.poll() is None:
                time.sleep(0.2)
            raise
        if event != "killed":
            return
