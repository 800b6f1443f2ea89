"""One attempt at a run: a process of its own, and a record of how it ended."""

import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiodd_jax.runtime import multiprocess, supervisor
from audiodd_jax.sweep.plan import Planned

RECORD = "sweep.jsonl"
LOGS = "logs"
# Seconds that a process whose parent died has to leave its run directory.
_PATIENCE = 120.0
_PREFIX = "audiodd: error: "


def record(workdir: Path, run: str, event: str, **more: Any) -> None:
    """Appends what happened to a run to the sweep's record; one line, one write."""
    row = {"time": round(time.time(), 2), "run": run, "event": event, **more}
    with (workdir / RECORD).open("a") as file:
        file.write(json.dumps(row) + "\n")


def is_finished(workdir: Path, plan: Planned) -> bool:
    """Whether the run has its result."""
    return (workdir / plan.name / "result.json").exists()


class Attempt:
    """The process of a run, until it has ended."""

    def __init__(
        self,
        plan: Planned,
        workdir: Path,
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ):
        """Starts the process, which resumes the run where it was interrupted.

        Args:
          plan: the run.
          workdir: the sweep's.
          folder: where relative paths among the flags begin.
          environment: over this process's own.
        """
        self.plan, self._workdir = plan, workdir
        self._began, self._is_told = time.monotonic(), False
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
                    **supervisor.FOLLOWS,
                    **(environment or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _command(self) -> list[str]:
        plan = self.plan
        command = [sys.executable, "-m", "audiodd_jax", plan.command, *plan.flags]
        return [*command, f"--workdir={self._workdir / plan.name}"]

    def poll(self) -> str | None:
        """How the run ended, once the process has.

        ``finished``, ``failed``, ``cut`` or ``killed``.
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
        if code in (128 + signal.SIGTERM, 128 + signal.SIGINT):
            return "cut", "stopped; its state is saved"
        if code < 0:
            return "killed", f"killed by signal {-code}"
        with self._log.open(errors="replace") as log:
            log.seek(self._begin)
            lines = [line.strip() for line in log if line.strip()]
        for prefix in (_PREFIX, ""):
            told = [line for line in lines if line.startswith(prefix)]
            if told:
                return "failed", told[-1].removeprefix(prefix)
        return "failed", f"exit code {code}"

    def stop(self) -> None:
        """Asks the process to save its state and end; once, so that it can."""
        if self._process.poll() is None and not self._is_told:
            self._is_told = True
            self._process.send_signal(signal.SIGTERM)


def wait_until_free(directory: Path) -> None:
    """Waits until no process holds a run directory, for a while.

    Where a worker was killed, its run's process takes a moment to notice.
    """
    lock, until = directory / ".lock", time.monotonic() + _PATIENCE
    while lock.exists() and time.monotonic() < until:
        with lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(0.2)
            else:
                return


def perform(
    plan: Planned,
    workdir: Path,
    folder: Path,
    retries: int,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Runs a run to its end, as the body of a task; the sweep's record says how.

    A finished run is not run again, and a killed one is retried.

    Args:
      plan: the run.
      workdir: the sweep's.
      folder: where relative paths among the flags begin.
      retries: after which a run that is killed counts as failed.
      environment: over this process's own.
    """
    wait_until_free(workdir / plan.name)
    for _ in range(retries + 1):
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
