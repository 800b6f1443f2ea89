"""The run directory: a run's configuration, metrics and results."""

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict

from audiodd_jax.errors import InUseError, UserError, named
from audiodd_jax.runtime import files, multiprocess
from audiodd_jax.runtime.environment import describe, numerics

# What a run is about, in the order in which differences are named, by plain flag.
_SUBJECT = {
    "data.name": "--dataset",
    "data.variant": "--variant",
    "data.data_dir": "--data_dir",
    "data.fold": "--fold",
    "method": "--method",
}


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns the names of the settings that differ, the subject of the run first."""
    names = list(_SUBJECT)
    return sorted(
        (name for name in {*before, *now} if before.get(name) != now.get(name)),
        key=lambda name: (names.index(name) if name in names else len(names), name),
    )


def _change(name: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    """Describes how a setting differs."""
    shown = _SUBJECT.get(name, name)
    return f"{shown} was {before.get(name)!r} and is now {now.get(name)!r}"


class RunDirectory:
    """A run's folder, locked by one process at a time.

    In a run of several processes only process 0 reads and writes it; the others receive
    what it reads. It is a context manager:

        with RunDirectory(path, config) as run:
            run.start_from(0)
            run.log({"step": 10, "loss": 0.1})

    ``config`` identifies the run and is kept in ``config.json``; ``defaults`` are
    values of settings that older versions lack. A resumed run records new values of
    the settings (dotted names) that ``may_change``: they do not affect the numbers.
    Refusals do not name the groups of settings that are ``unused``, unless only they
    differ.

    Raises:
      UserError: on entry: the folder holds something else or a run with another
        configuration, or another process is writing it.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        config: dict[str, Any],
        *,
        defaults: dict[str, Any] | None = None,
        may_change: Iterable[str] = (),
        unused: Iterable[str] = (),
    ):
        self.path = Path(path)
        self._config = config
        self._defaults, self._may_change = defaults or {}, frozenset(may_change)
        self._unused = frozenset(unused)
        self._data_dirs = ("", "")  # recorded, and now
        self._lock = None
        self._is_new = False
        self._events = None
        self._data: str | None = None

    def __enter__(self) -> "RunDirectory":
        multiprocess.from_process_zero(self._open)
        return self

    def _open(self) -> None:
        path = self.path
        if path.is_dir() and not (path / ".lock").exists() and any(path.iterdir()):
            raise UserError(
                f"{path} is not empty and holds no run; choose another folder"
            )
        self._is_new = not path.exists()
        self._lock = files.hold_folder(path, ".lock", "the run directory")
        if self._lock is None:
            raise InUseError(f"another process is writing {path}")
        try:
            files.remove_unfinished(path)
            self._check_config()
        except BaseException:
            self._lock.release()
            raise

    def _check_config(self) -> None:
        file = self.path / "config.json"
        if not file.exists():
            return
        environment = self.path / "environment.json"
        if environment.exists():
            before, now = files.read_json(environment).get("numerics") or {}, numerics()
            now = {name: now.get(name) for name in before}
            if changed := _changed(before, now):
                raise UserError(
                    f"{self.path} was run with other settings of JAX: "
                    f"{_change(changed[0], before, now)}"
                )
        # Through JSON, which turns tuples into lists.
        now = flatten_dict(json.loads(json.dumps(self._config)), sep=".")
        recorded = files.read_json(file)
        if not isinstance(recorded, dict):
            raise UserError(f"{file} is damaged: it holds no settings")
        before = flatten_dict(self._defaults, sep=".") | flatten_dict(recorded, sep=".")
        changed = _changed(before, now)
        if not self._may_change.issuperset(changed):
            self._refuse(before, now, changed)
        place = "data.data_dir"
        self._data_dirs = (before.get(place) or "", now.get(place) or "")

    def _refuse(self, before: dict, now: dict, changed: list[str]) -> None:
        """Refuses another configuration than the recorded one."""
        shown = [n for n in changed if n in _SUBJECT or n not in self._may_change]
        # The defaults of everything depend on the dataset and the method.
        if {"data.name", "method"} & set(shown):
            shown = [name for name in shown if name in _SUBJECT]
        shown = [n for n in shown if n.split(".")[0] not in self._unused] or shown
        changes = [_change(name, before, now) for name in shown[:3]]
        more = f", and {len(shown) - 3} more" if len(shown) > 3 else ""
        raise UserError(
            f"{self.path} holds a run with another configuration "
            f"({'; '.join(changes)}{more}); choose another --workdir"
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
                if error is not None and self._is_new:
                    # Nothing was written to it. If it is already gone, or in use after
                    # all, the run's own error matters more.
                    with contextlib.suppress(OSError):
                        if os.listdir(self.path) == [".lock"]:
                            (self.path / ".lock").unlink()
                            self.path.rmdir()
                self._lock.release()

    def has_moved(self) -> bool:
        """Returns whether the data has another place than that of the earlier run."""
        before, now = multiprocess.from_process_zero(lambda: self._data_dirs)
        return before != now

    def result(self) -> dict[str, Any] | None:
        """Returns the result of a finished run, or None."""
        file = self.path / "result.json"
        return multiprocess.from_process_zero(
            lambda: files.read_json(file) if file.exists() else None
        )

    def finish(self, result: dict[str, Any]) -> None:
        """Writes ``result.json``, which marks the run as finished."""
        if multiprocess.is_process_zero():
            files.write_json(self.path / "result.json", result)

    def history(self) -> list[dict[str, Any]]:
        """Returns the rows of ``metrics.jsonl``, without an incomplete last line."""
        return multiprocess.from_process_zero(self._read_history)

    def _read_history(self) -> list[dict[str, Any]]:
        rows = files.read_rows(self.path / "metrics.jsonl", "step")
        return list(itertools.takewhile(lambda row: isinstance(row["step"], int), rows))

    def use_data(self, digest: str) -> None:
        """Sets the digest of the run's data, and compares it with an interrupted run's.

        Raises:
          UserError: the run was started with other data or another split.
        """
        self._data = digest

        def check() -> None:
            file, (before, now) = self.path / "data.json", self._data_dirs
            if not file.exists() or files.read_json(file).get("digest") == digest:
                return
            if before != now:
                raise UserError(
                    f"{self.path} holds a run with other data: --data_dir was "
                    f"{before!r} and is now {now!r}; choose another --workdir"
                )
            raise UserError(
                f"the data of {self.path} or its split has changed since the run was "
                "started; restore it, or choose another --workdir"
            )

        multiprocess.from_process_zero(check)

    def start_from(self, step: int) -> None:
        """Writes configuration and environment, and drops rows after ``step``.

        Before this call the folder belongs to no run: one that is refused for its data
        or settings leaves the folder free.
        """
        if not multiprocess.is_process_zero():
            return
        files.write_json(self.path / "config.json", self._config)
        files.write_json(self.path / "environment.json", describe())
        if self._data:
            files.write_json(self.path / "data.json", {"digest": self._data})
        rows = [row for row in self._read_history() if row["step"] <= step]
        text = "".join(files.to_json(row) + "\n" for row in rows)
        files.write_atomically(self.path / "metrics.jsonl", text)
        # Imported here because it takes a second.
        from tensorboardX import SummaryWriter

        self._events = SummaryWriter(str(self.path), purge_step=step + 1)

    def log(self, row: dict[str, Any]) -> None:
        """Appends a row, which has a ``step``, to ``metrics.jsonl`` and TensorBoard."""
        if not multiprocess.is_process_zero():
            return
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(files.to_json(row) + "\n")
        for name, value in row.items():
            # TensorBoard takes scalars only.
            if name != "step" and isinstance(value, int | float):
                self._events.add_scalar(name, value, row["step"])


class RunResult(NamedTuple):
    """The contents of ``result.json`` of a finished run, and its directory."""

    result: dict[str, Any]
    path: Path


def run_once(
    workdir: str | os.PathLike,
    record: dict[str, Any],
    work: Callable[[RunDirectory], dict[str, Any]],
    digest: Callable[[], str] | None = None,
    **options: Any,
) -> RunResult:
    """Does the work of a run in its directory, unless the run is already finished.

    ``work`` returns the result; it calls ``use_data`` and ``start_from`` (which
    ``train_loop`` calls). ``digest`` returns what ``use_data`` takes, by which data at
    another place is recognised as that of a finished run. See ``RunDirectory`` for
    ``record``, ``options`` and errors.
    """
    with RunDirectory(workdir, record, **options) as run:
        result = run.result()
        if not result:
            result = work(run)
            run.finish(result)
        elif digest and run.has_moved():
            run.use_data(digest())
        return RunResult(result, run.path)
