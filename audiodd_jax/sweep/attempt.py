"""One attempt at a run: a process of its own, and a record of how it ended."""

import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audiodd_jax.runtime import processes, supervisor
from audiodd_jax.runtime.runs import read_json
from audiodd_jax.sweep import group
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
    """The process of a run, or of some that are one program, until it has ended."""

    def __init__(
        self,
        unit: Sequence[Planned],
        workdir: Path,
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ):
        """Starts the process, which continues the runs where they were cut.

        Args:
          unit: the runs.
          workdir: the sweep's.
          folder: where relative paths among the flags begin.
          environment: over this process's own.
        """
        self.unit, self._workdir = unit, workdir
        self._began, self._is_told = time.monotonic(), False
        self._log = workdir / LOGS / f"{unit[0].name}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        for plan in unit:
            flags = {"flags": plan.flags, "together": len(unit)}
            record(workdir, plan.name, "started", host=platform.node(), **flags)
        with self._log.open("a") as log:
            self._begin = log.tell()
            self._process = subprocess.Popen(
                self._command(),
                cwd=folder,
                env={
                    **processes.alone(os.environ),
                    **supervisor.FOLLOWS,
                    **(environment or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _command(self) -> list[str]:
        if len(self.unit) == 1:
            (plan,) = self.unit
            command = [sys.executable, "-m", "audiodd_jax", plan.command, *plan.flags]
            return [*command, f"--workdir={self._workdir / plan.name}"]
        file = self._log.with_suffix(".json")
        group.write(self.unit, self._workdir, file)
        return [sys.executable, "-m", "audiodd_jax.cli_group", str(file)]

    def poll(self) -> dict[Planned, str] | None:
        """How each run ended, once the process has.

        ``finished``, ``failed``, ``cut`` or ``killed``.
        """
        code = self._process.poll()
        if code is None:
            return None
        seconds = round(time.monotonic() - self._began, 1)
        ended = {}
        for plan in self.unit:
            event, reason = self._ended(plan, code)
            record(self._workdir, plan.name, event, reason=reason, seconds=seconds)
            ended[plan] = event
        return ended

    def _ended(self, plan: Planned, code: int) -> tuple[str, str]:
        if is_finished(self._workdir, plan):
            return "finished", ""
        if code in (128 + signal.SIGTERM, 128 + signal.SIGINT):
            return "cut", "stopped; its state is saved"
        if code < 0:
            return "killed", f"killed by signal {-code}"
        with self._log.open(errors="replace") as log:
            log.seek(self._begin)
            lines = [line.strip() for line in log if line.strip()]
        for prefix in (group.FAILED.format(plan.name), _PREFIX, ""):
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
    unit: Sequence[Planned],
    workdir: Path,
    folder: Path,
    retries: int,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Runs some runs to their ends, in this process's place; the record tells how.

    What is finished is not run again, and what was killed is tried again.

    Args:
      unit: the runs: one, or some that are one program.
      workdir: the sweep's.
      folder: where relative paths among the flags begin.
      retries: after which a run that is killed counts as failed.
      environment: over this process's own.
    """
    for plan in unit:
        wait_until_free(workdir / plan.name)
    for _ in range(retries + 1):
        unit = [plan for plan in unit if not is_finished(workdir, plan)]
        if not unit:
            return
        attempt = Attempt(unit, workdir, folder, environment)
        try:
            while (ended := attempt.poll()) is None:
                time.sleep(0.2)
        except BaseException:
            attempt.stop()
            while attempt.poll() is None:
                time.sleep(0.2)
            raise
        unit = [plan for plan, event in ended.items() if event == "killed"]


def last_step(directory: Path) -> int | None:
    """The last step that a run has recorded, if any."""
    file = directory / "metrics.jsonl"
    if not file.exists():
        return None
    with file.open("rb") as rows:
        rows.seek(max(0, file.stat().st_size - 4096))
        lines = rows.read().splitlines()
    for line in reversed(lines):
        try:
            return json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            continue
    return None


def accuracy(directory: Path) -> float | None:
    """The test accuracy of a finished run."""
    file = directory / "result.json"
    return read_json(file).get("test_accuracy") if file.exists() else None
