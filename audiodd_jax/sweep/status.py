"""The record of a sweep in its folder, which is locked, and the states of its runs."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import rich.console
import rich.live
import rich.markup
import rich.table

from audiodd_jax.errors import UserError
from audiodd_jax.features.metric import score_of
from audiodd_jax.report import tables
from audiodd_jax.report.runs import SWEEP_RECORD
from audiodd_jax.report.tables import Table
from audiodd_jax.runtime import lease, mirror
from audiodd_jax.runtime.files import (
    read_json,
    read_rows,
    remove_unfinished,
    write_atomically,
)
from audiodd_jax.sweep.plan import Planned

LOGS = "logs"
# Seconds between updates.
_EVERY = 2.0


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


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Locks the sweep's folder for one process."""
    if (workdir / "config.json").exists():
        raise UserError(f"{workdir} holds a run; a sweep needs its own folder")
    # The runs publish their own folders.
    is_ours = lambda name: "/" not in name or name.startswith(f"{LOGS}/")
    given = (workdir, ".sweep", "the sweep's folder", SWEEP_RECORD, is_ours)
    lock = lease.hold_folder(*given)
    if lock is None:
        raise UserError(f"another sweep is running in {workdir}")
    try:
        remove_unfinished(workdir)
        yield
    finally:
        lock.release()


def queue(plans: Sequence[Planned], workdir: Path) -> list[Planned]:
    """Records the unfinished runs as waiting, and returns them."""
    unfinished = []
    for plan, state in zip(plans, read(plans, workdir), strict=True):
        if state.flags and state.flags != plan.flags:
            before, now = set(state.flags), set(plan.flags)
            removed = ", ".join(sorted(before - now)) or "fewer flags"
            added = ", ".join(sorted(now - before)) or "fewer"
            raise UserError(
                f"run {plan.name} was started with {removed} and now has {added}; "
                "choose another --workdir or another name"
            )
        if not is_finished(workdir, plan):
            record(workdir, plan.name, "queued")
            unfinished.append(plan)
        elif state.what != "finished":
            record(workdir, plan.name, "finished")
    return unfinished


def is_finished(workdir: Path, plan: Planned) -> bool:
    """Returns whether the run has a result."""
    return mirror.exists(workdir / plan.name / "result.json")


def record(workdir: Path, run: str, event: str, **more: Any) -> None:
    """Appends an event of a run to the sweep's record."""
    row = {"time": round(time.time(), 2), "run": run, "event": event, **more}
    with (workdir / SWEEP_RECORD).open("a") as file:
        file.write(json.dumps(row) + "\n")
    if event != "queued":  # all at once
        lease.commit(workdir)


def new_rows(workdir: Path) -> Callable[[], list[dict[str, Any]]]:
    """Returns a function that returns the rows that only this machine records from now.

    They are empty on the sweep's machine, and where all machines share its folder.
    """
    if not mirror.url_of(workdir) or mirror.is_held(workdir / ".sweep"):
        return list
    workdir.mkdir(parents=True, exist_ok=True)
    rows = lambda: read_rows(workdir / SWEEP_RECORD, "run", "event", skip=True)
    before = len(rows())
    return lambda: rows()[before:]


def add(workdir: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Adds rows that another machine recorded."""
    if rows:
        with (workdir / SWEEP_RECORD).open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        lease.commit(workdir)


class State(NamedTuple):
    """The state of a run.

    Attributes:
      what: ``waiting``, ``running``, ``finished``, ``failed``, ``cut`` (interrupted) or
        ``killed``.
      attempts: number of processes started for it by any worker.
      tries: those since it was last queued.
      host: where the last attempt ran.
      flags: those of the last attempt.
      reason: why it ended without a result.
      seconds: duration of the last attempt, once it has ended.
    """

    name: str
    what: str = "waiting"
    attempts: int = 0
    tries: int = 0
    host: str = ""
    flags: tuple[str, ...] = ()
    reason: str = ""
    seconds: float | None = None

    def after(self, row: dict[str, Any]) -> "State":
        """Returns the state after an event of the record."""
        event = row["event"]
        if event == "queued":
            return self._replace(what="waiting", tries=0, reason="", seconds=None)
        if event == "started":
            return self._replace(
                what="running",
                attempts=self.attempts + 1,
                tries=self.tries + 1,
                host=row["host"],
                flags=tuple(row["flags"]),
            )
        seconds = row.get("seconds", self.seconds)
        return self._replace(what=event, reason=row.get("reason", ""), seconds=seconds)


def read(plans: Sequence[Planned], workdir: Path) -> list[State]:
    """Returns the states of a sweep's runs, from its record."""
    states = {plan.name: State(plan.name) for plan in plans}
    # Full disks and kills leave incomplete lines.
    for row in read_rows(workdir / SWEEP_RECORD, "run", "event", skip=True):
        if row["run"] in states:
            states[row["run"]] = states[row["run"]].after(row)
    return list(states.values())


def table(states: Sequence[State], workdir: Path) -> Table:
    """Returns the states, with the runs' steps and accuracies, as a table."""
    results = [
        _result(workdir / state.name) if state.what == "finished" else {}
        for state in states
    ]
    accuracy = f"test {tables.metric_of(results)} (%)"
    records = []
    for state, result in zip(states, results, strict=True):
        score = score_of(result) if result else None
        cells = {
            "run": state.name,
            "state": state.what,
            "attempts": str(state.attempts or ""),
            "host": state.host,
            "step": _last_step(workdir / state.name / "metrics.jsonl"),
            accuracy: "" if score is None else f"{100 * score:.1f}",
            "s": "" if state.seconds is None else f"{state.seconds:.0f}",
            "reason": state.reason,
        }
        records.append(cells)
    return tables.from_records(records)


def _result(run: Path) -> dict[str, Any]:
    """Returns the result of a finished run, also of one on another machine."""
    file = run / "result.json"
    if not file.exists():
        mirror.fetch(file)
    return read_json(file) if file.exists() else {}


def _last_step(file: Path) -> str:
    """Returns the step of the last complete row of a run's metrics, if any."""
    if not file.exists():
        return ""
    with file.open("rb") as rows:
        rows.seek(max(0, file.stat().st_size - 4096))
        lines = rows.read().splitlines()
    for line in reversed(lines):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return str(json.loads(line)["step"])
    return ""


@contextlib.contextmanager
def shown(plans: Sequence[Planned], workdir: Path) -> Iterator[Callable[[], None]]:
    """Shows the states while a sweep runs, and writes them to ``status.md``.

    On a terminal the table is redrawn in place; elsewhere each change is one line.

    Yields:
      A function that reads the states again, if they are due.
    """
    console = rich.console.Console(stderr=True)
    live = rich.live.Live(console=console, auto_refresh=False)
    printed: dict[str, str] = {}
    due = 0.0

    def update() -> None:
        nonlocal due
        if time.monotonic() < due:
            return
        due = time.monotonic() + _EVERY
        states = read(plans, workdir)
        current = table(states, workdir)
        write_atomically(workdir / "status.md", tables.markdown(current) + "\n")
        if console.is_terminal:
            live.update(_drawn(current.without_empty_columns()), refresh=True)
            return
        for state in states:
            if state.what not in ("waiting", printed.get(state.name)):
                reason = f": {state.reason}" if state.reason else ""
                print(f"{state.name}: {state.what}{reason}", file=sys.stderr)
            printed[state.name] = state.what

    with live if console.is_terminal else contextlib.nullcontext():
        update()
        try:
            yield update
        finally:
            due = 0.0
            update()


def _drawn(states: Table) -> rich.table.Table:
    """Returns the table for a terminal of any width; long cells wrap."""
    drawn = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in states.columns:
        drawn.add_column(name, overflow="fold")
    for row in states.rows:
        drawn.add_row(*map(rich.markup.escape, row))
    return drawn
