"""The record of a run: metrics and checkpoints."""

import json
import logging
import time
from pathlib import Path
from typing import Any

from audiodd_jax.runtime import multiprocess
from audiodd_jax.runtime.checkpoints import Checkpoints
from audiodd_jax.runtime.files import read_json
from audiodd_jax.runtime.run_directory import RunDirectory

_log = logging.getLogger(__name__)


class RunLog:
    """Metrics and checkpoints of a run; only in memory if it has no directory."""

    def __init__(self, run: RunDirectory | None):
        self._run = run
        self._checkpoints = Checkpoints(run.path / "checkpoints") if run else None
        self._began = time.perf_counter()
        self._elapsed = 0.0
        self.history: list[dict[str, Any]] = []

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        if self._checkpoints:
            self._checkpoints.close()

    def resume(self, state: Any) -> tuple[int, Any]:
        """The step and state to resume from: the last checkpoint's, else the first."""
        if not self._run:
            return 0, state
        found = self._checkpoints.restore_latest(state)
        saved = None
        if found is not None:
            saved, state = found
            if multiprocess.is_process_zero():
                _log.info("resuming %s from step %d", self._run.path, saved)
        self._run.start_from(-1 if saved is None else saved)
        self.history = self._run.history()
        if self.history:
            self._elapsed = self.history[-1]["seconds"]
        return saved or 0, state

    def record(self, row: dict[str, Any]) -> None:
        """Records a row of metrics, with the seconds that the run has taken."""
        seconds = self._elapsed + time.perf_counter() - self._began
        row = {**row, "seconds": round(seconds, 3)}
        self.history.append(row)
        if self._run:
            self._run.log(row)

    def save(self, state: Any, step: int) -> None:
        """Writes a checkpoint."""
        if self._checkpoints:
            self._checkpoints.save(step, state)

    def last_good(self) -> str:
        """Names the last saved state, as the end of a sentence."""
        if not self._checkpoints:
            return ""
        path = self._checkpoints.path(self._checkpoints.latest() or 0)
        return f"; the last good state is {path}"


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


def result_of(directory: Path) -> dict[str, Any]:
    """The result of a run; empty if it is not finished."""
    file = directory / "result.json"
    return read_json(file) if file.exists() else {}
