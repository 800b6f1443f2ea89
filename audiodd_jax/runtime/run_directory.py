"""The run directory: a run's configuration, metrics and results."""

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict

from audiodd_jax.errors import InUseError, UserError
from audiodd_jax.runtime import files, lease, mirror, multiprocess, trackers
from audiodd_jax.runtime.environment import describe, numerics
from audiodd_jax.runtime.trackers import Start, Tracker, Trackers

# What a run is about, named first in a refusal; all defaults depend on it.
_SUBJECT = ("data.name", "data.variant", "data.data_dir", "data.fold", "method")
# The methods that read a group of settings, if not all do.
_READ_BY = {"kip": ["kip"], "frepo": ["frepo"], "siamese": ["dsa", "dm"]}
_READ_BY["matching"] = ["dc", "dsa", "dm"]


def _changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Describes the first settings that differ and were given, in words."""
    changed = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    method = now.get("method")
    is_read = lambda name: method in _READ_BY.get(name.split(".")[0], [method])
    shown = [name for name in _SUBJECT if name in changed]
    if not {"data.name", "method"} & set(shown):
        others = [name for name in changed if name not in shown]
        shown += list(filter(is_read, others)) or others
    changes = []
    for name in shown:
        flag = "--" + name.split(".")[-1].replace("name", "dataset")
        title = flag if name in _SUBJECT else name
        changes.append(f"{title} was {before.get(name)!r} and is now {now.get(name)!r}")
    more = f", and {len(changes) - 3} more" if len(changes) > 3 else ""
    return "; ".join(changes[:3]) + more


class RunDirectory:
    """A run's folder, locked by one process at a time.

    In a run of several processes only process 0 reads and writes it; the others receive
    what it reads. A run in an object store is published when it starts, with each
    checkpoint and with its result (see ``lease``). It is a context manager:

        with RunDirectory(path, config) as run:
            run.start_from(0)
            run.log({"step": 10, "loss": 0.1})

    ``config`` identifies the run and is kept in ``config.json``; ``defaults`` are
    values of settings that older versions lack. A resumed run records new values of
    the settings (dotted names) that ``may_change``: they do not affect the numbers.
    ``tracked_by`` starts trackers by name.

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
        tracked_by: Mapping[str, Callable[[Start], Tracker]] = trackers.DEFAULT,
    ):
        self.path = Path(path)
        self._config = config
        self._defaults, self._may_change = defaults or {}, frozenset(may_change)
        self._moved = ""  # how the place of the data differs
        self._lock = None
        self._is_new = False
        self._starts = tracked_by
        self._trackers = Trackers({}, Start(self.path, config, 0))
        self._last_step = 0
        self._data: str | None = None

    def __enter__(self) -> "RunDirectory":
        multiprocess.from_process_zero(self._open)
        return self

    def _open(self) -> None:
        path = self.path
        is_local = not mirror.url_of(path)
        is_unknown = is_local and path.is_dir() and not (path / ".lock").exists()
        if is_unknown and any(path.iterdir()):
            raise UserError(
                f"{path} is not empty and holds no run; choose another folder"
            )
        self._is_new = not path.exists()
        what = "the run directory"
        self._lock = lease.hold_folder(path, ".lock", what, "config.json")
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
            if before != now:
                raise UserError(
                    f"{self.path} was run with other settings of JAX: "
                    f"{_changes(before, now)}"
                )
        # Through JSON, which turns tuples into lists.
        now = flatten_dict(json.loads(json.dumps(self._config)), sep=".")
        recorded = files.read_json(file)
        if not isinstance(recorded, dict):
            raise UserError(f"{file} is damaged: it holds no settings")
        before = flatten_dict(self._defaults, sep=".") | flatten_dict(recorded, sep=".")
        name = "data.data_dir"
        places = [{name: one.get(name, "")} for one in (before, now)]
        is_url = lambda place: "://" in place[name]
        absolute = lambda p: p[name] if is_url(p) else os.path.abspath(p[name])
        if len(set(map(absolute, places))) > 1:
            self._moved = _changes(*places)
        if any(before.get(n) != now.get(n) for n in {*before, *now} - self._may_change):
            raise UserError(
                f"{self.path} holds a run with another configuration "
                f"({_changes(before, now)}); choose another --workdir"
            )

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(self.path)  # a failed write names no file
        try:
            self._trackers.close()
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
        """Returns whether an earlier run read its data at another place."""
        return multiprocess.from_process_zero(lambda: bool(self._moved))

    def result(self) -> dict[str, Any] | None:
        """Returns the result of a finished run, or None."""
        file = self.path / "result.json"
        return multiprocess.from_process_zero(
            lambda: files.read_json(file) if file.exists() else None
        )

    def finish(self, result: dict[str, Any]) -> None:
        """Writes ``result.json``, which marks the run as finished."""
        if multiprocess.is_process_zero():
            self._trackers.finish(self._last_step, result, self.path / "figures")
            files.write_json(self.path / "result.json", result)
            lease.commit(self.path)

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
            file = self.path / "data.json"
            if file.exists() and files.read_json(file).get("digest") != digest:
                change = (
                    self._moved or "the data or its split has changed since the start"
                )
                raise UserError(
                    f"{self.path} holds a run with other data: {change}; restore it, "
                    "or choose another --workdir"
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
        begin = Start(self.path, self._config, step + 1)
        self._trackers = Trackers(self._starts, begin)
        lease.commit(self.path)

    def log(self, row: dict[str, Any]) -> None:
        """Appends a row, which has a ``step``, to ``metrics.jsonl`` and trackers."""
        if not multiprocess.is_process_zero():
            return
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(files.to_json(row) + "\n")
        self._last_step = row["step"]
        self._trackers.scalars(row["step"], row)


class RunResult(NamedTuple):
    """The contents of ``result.json`` of a finished run, and its directory."""

    result: dict[str, Any]
    path: Path


def run_once(
    workdir: str | os.PathLike,
    record: dict[str, Any],
    work: Callable[[RunDirectory], dict[str, Any]],
    **options: Any,
) -> RunResult:
    """Does the work of a run in its directory, unless the run is already finished.

    ``work`` returns the result; it calls ``use_data`` and ``start_from`` (which
    ``train_loop`` calls). A finished run repeats its last part if the data lies at
    another place, since it could be other data. See ``RunDirectory`` for ``record``,
    ``options`` and errors.
    """
    with RunDirectory(workdir, record, **options) as run:
        result = run.result()
        if not result or run.has_moved():
            result = work(run)
            run.finish(result)
        return RunResult(result, run.path)
