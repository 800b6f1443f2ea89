"""One attempt at a run of a sweep: its process, and the record of how it ended."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from audiodd_jax.runtime import multiprocess, signals, supervisor
from audiodd_jax.runtime.files import read_rows
from audiodd_jax.runtime.locks import hold
from audiodd_jax.sweep.plan import Planned

RECORD = "sweep.jsonl"
LOGS = "logs"
# Seconds in which a process whose parent died must release its run directory.
_PATIENCE = 120.0
_PREFIX = "audiodd: error: "


def record(workdir: Path, run: str, event: str, **more: Any) -> None:
    """Appends an event of a run to the sweep's record."""
    row = {"time": round(time.time(), 2), "run": run, "event": event, **more}
    with (workdir / RECORD).open("a") as file:
        file.write(json.dumps(row) + "\n")


def _attempts(workdir: Path, run: str) -> int:
    """Processes that were started for a run since it was queued, by any worker."""
    count = 0
    for row in read_rows(workdir / RECORD, "run", "event", skip=True):
        if row["run"] == run:
            count = {"queued": 0, "started": count + 1}.get(row["event"], count)
    return count


def is_finished(workdir: Path, plan: Planned) -> bool:
    """Whether the run has a result."""
    return (workdir / plan.name / "result.json").exists()


class Attempt:
    """A process that runs one run of a sweep."""

    def __init__(
        self,
        plan: Planned,
        workdir: Path,
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ):
        """Starts the process, which resumes an interrupted run.

        Args:
          plan: the run.
          workdir: of the sweep.
          folder: working directory, to which relative paths in the flags refer.
          environment: variables in addition to this process's.
        """
        self.plan, self._workdir = plan, workdir
        self._began, self._is_stopping = time.monotonic(), False
        self._log = workdir / LOGS / f"{plan.name}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        record(workdir, plan.name, "started", host=platform.node(), flags=plan.flags)
        with self._log.open("a") as log:
            self._begin = log.tell()
            self._process = subprocess.Popen(
                self._command(),
                cwd=folder,
                env={
                    **multiprocess.alone(os.environ),
                    **supervisor.follows(),
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    **(environment or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _command(self) -> list[str]:
        plan = self.plan
        command = [sys.executable, "-P", "-m", "audiodd_jax", plan.command, *plan.flags]
        return [*command, f"--workdir={self._workdir / plan.name}"]

    def poll(self) -> str | None:
        """How the process ended, or None while it runs.

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
        if is_finished(self._workdir, self.plan):
            return "finished", ""
        if code - 128 in signals.SIGNALS:
            return "cut", "interrupted; its state is saved"
        if code < 0:
            return "killed", f"killed by signal {-code}"
        with self._log.open(errors="replace") as log:
            log.seek(self._begin)
            lines = [line.strip() for line in log if line.strip()]
        for prefix in (_PREFIX, ""):
            found = [line for line in lines if line.startswith(prefix)]
            if found:
                return "failed", found[-1].removeprefix(prefix)
        return "failed", f"exit code {code}"

    def stop(self) -> None:
        """Sends SIGTERM, once: the process saves its state and ends."""
        if self._process.poll() is None and not self._is_stopping:
            self._is_stopping = True
            self._process.send_signal(signal.SIGTERM)


def wait_until_free(directory: Path, stopping: Callable[[], int] = lambda: 0) -> None:
    """Waits until no process holds a run directory, up to a time limit.

    When a worker is killed, its run's process takes a moment to notice.

    Args:
      directory: of the run.
      stopping: returns a signal that ends the waiting, or 0.
    """
    path, until = directory / ".lock", time.monotonic() + _PATIENCE
    while path.exists() and time.monotonic() < until and not stopping():
        if lock := hold(path):
            lock.release()
            return
        time.sleep(0.2)


def perform(
    plan: Planned,
    workdir: Path,
    folder: Path,
    retries: int,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Runs one run to its end: the body of a cluster task.

    A finished run is skipped, and a killed one is retried. The outcome is in the
    sweep's record.

    Args:
      plan: the run.
      workdir: of the sweep.
      folder: working directory, to which relative paths in the flags refer.
      retries: of a killed process.
      environment: variables in addition to this process's.
    """
    wait_until_free(workdir / plan.name)
    while _attempts(workdir, plan.name) <= retries:
        if is_finished(workdir, plan):
            return
        attempt = Attempt(plan, workdir, folder, environment)
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
