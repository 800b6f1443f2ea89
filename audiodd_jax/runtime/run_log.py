"""The record of a run: metrics and checkpoints."""

import logging
import time
from typing import Any

from audiodd_jax.runtime import multiprocess
from audiodd_jax.runtime.checkpoints import Checkpoints
from audiodd_jax.runtime.run_directory import RunDirectory

_log = logging.getLogger(__name__)


class RunLog:
    """Metrics and checkpoints of a run; only in memory if it has no directory."""

    def __init__(self, run: RunDirectory | None):
        self._run = run
        self._checkpoints = Checkpoints(run.path / "checkpoints") if run else None
        self._began = time.perf_counter()
        self.history: list[dict[str, Any]] = []

    def resume(self, state: Any) -> tuple[int, Any]:
        """Returns the step and state of the last checkpoint, else 0 and ``state``."""
        if not self._run:
            return 0, state
        saved = self._checkpoints.restore_latest(state)
        if saved is None:
            self._run.start_from(-1)
            return 0, state
        step, state = saved
        if multiprocess.is_process_zero():
            _log.info("resuming %s from step %d", self._run.path, step)
        self._run.start_from(step)
        self.history = self._run.history()
        if self.history:
            self._began -= self.history[-1]["seconds"]
        return step, state

    def record(self, row: dict[str, Any]) -> None:
        """Records a row of metrics and the seconds that the run has taken so far."""
        row = {**row, "seconds": round(time.perf_counter() - self._began, 3)}
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
