"""The run directory: one run, its configuration, its record and its results."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from audiodd_jax.runtime import multiprocess
from audiodd_jax.runtime.environment import describe
from audiodd_jax.runtime.errors import UserError, named
from audiodd_jax.runtime.files import read_json, write_atomically, write_json


def differences(there: dict, here: dict, prefix: str = "") -> list[str]:
    """Fields in which two nested configurations differ, as ``name: there, here``."""
    found = []
    for name in sorted({*there, *here}):
        old, new = there.get(name), here.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name} is {old!r} there and {new!r} here")
    return found


class RunDirectory:
    """A run's folder, held by one process at a time.

    Of the processes of one run the lead alone touches it; the others are told what it
    reads, and what they write goes nowhere.

    Use it as a context manager:

        with RunDirectory(path, config) as run:
            run.log({"step": 10, "loss": 0.1})
    """

    def __init__(self, path: str | os.PathLike, config: dict[str, Any]):
        """Opens or makes the folder for the run that ``config`` describes.

        Raises:
          UserError: the folder holds something else, or a run with another
            configuration, or another process is writing it.
        """
        self.path = Path(path)
        self._config = config
        self._lock = None
        self._events = None

    def __enter__(self) -> "RunDirectory":
        multiprocess.from_process_zero(self._open)
        return self

    def _open(self) -> None:
        path = self.path
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is not a folder")
        alien = path.is_dir() and not (path / ".lock").exists() and any(path.iterdir())
        if alien:
            raise UserError(f"{path} is not empty and holds no run; choose another")
        path.mkdir(parents=True, exist_ok=True)
        self._lock = (path / ".lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise UserError(f"another process is writing {path}") from error
        try:
            self._check_config()
        except BaseException:
            self._lock.close()
            raise

    def _check_config(self) -> None:
        file = self.path / "config.json"
        if not file.exists():
            return
        # As JSON reads it back: tuples have become lists.
        here = json.loads(json.dumps(self._config))
        found = differences(read_json(file), here)
        if found:
            more = f", and {len(found) - 3} more" if len(found) > 3 else ""
            raise UserError(
                f"{self.path} holds a run with another configuration "
                f"({'; '.join(found[:3])}{more}); choose another --workdir"
            )

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(self.path)  # a failed write names no file
        try:
            with named(self.path):
                if self._events is not None:
                    self._events.close()
        finally:
            if self._lock is not None:
                self._lock.close()

    def result(self) -> dict[str, Any] | None:
        """The result of a finished run, or None."""
        file = self.path / "result.json"
        read = lambda: read_json(file) if file.exists() else None
        return multiprocess.from_process_zero(read)

    def finish(self, result: dict[str, Any]) -> None:
        """Writes ``result.json``, which marks the run as finished."""
        if multiprocess.is_process_zero():
            write_json(self.path / "result.json", result)

    def history(self) -> list[dict[str, Any]]:
        """The rows of ``metrics.jsonl``; one cut short by a kill is left out."""
        return multiprocess.from_process_zero(self._read_history)

    def _read_history(self) -> list[dict[str, Any]]:
        file = self.path / "metrics.jsonl"
        rows = []
        for line in file.read_text().splitlines() if file.exists() else ():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def start_from(self, step: int) -> None:
        """Writes configuration and describe, drops what came after ``step``.

        Only now is the folder that run's: one that is refused before, for its data or
        its settings, leaves it free for another.
        """
        if not multiprocess.is_process_zero():
            return
        write_json(self.path / "config.json", self._config)
        write_json(self.path / "environment.json", describe())
        rows = [row for row in self._read_history() if row["step"] <= step]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomically(self.path / "metrics.jsonl", text)
        # Imported here: it takes a second, which only a writing run should pay.
        from tensorboardX import SummaryWriter

        self._events = SummaryWriter(str(self.path), purge_step=step + 1)

    def log(self, row: dict[str, Any]) -> None:
        """Appends a row, which has its ``step``, to the record and to TensorBoard."""
        if not multiprocess.is_process_zero():
            return
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in row.items():
            # TensorBoard draws numbers; lists are for readers of the file.
            if name != "step" and isinstance(value, int | float):
                self._events.add_scalar(name, value, row["step"])
