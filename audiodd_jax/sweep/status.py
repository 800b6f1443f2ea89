"""The states of a sweep's runs, from their directories and the sweep's record."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import rich.console
import rich.live
import rich.markup
import rich.table

from audiodd_jax.report import tables
from audiodd_jax.report.tables import Table
from audiodd_jax.runtime.files import read_json, read_rows, write_atomically
from audiodd_jax.sweep.plan import Planned
from audiodd_jax.sweep.run_process import RECORD

# Seconds between updates.
_EVERY = 2.0


class State(NamedTuple):
    """The state of a run.

    Attributes:
      what: ``waiting``, ``running``, ``finished``, ``failed``, ``cut`` (interrupted) or
        ``killed``.
      attempts: number of processes started for it.
      host: where the last attempt ran.
      flags: those of the last attempt.
      reason: why it ended without a result.
      seconds: duration of the last attempt, once it has ended.
    """

    name: str
    what: str = "waiting"
    attempts: int = 0
    host: str = ""
    flags: tuple[str, ...] = ()
    reason: str = ""
    seconds: float | None = None

    def after(self, row: dict[str, Any]) -> "State":
        """Returns the state after an event of the record."""
        event = row["event"]
        if event == "queued":
            return self._replace(what="waiting", reason="", seconds=None)
        if event == "started":
            return self._replace(
                what="running",
                attempts=self.attempts + 1,
                host=row["host"],
                flags=tuple(row["flags"]),
            )
        return self._replace(
            what=event,
            reason=row.get("reason", ""),
            seconds=row.get("seconds", self.seconds),
        )


def read(plans: Sequence[Planned], workdir: Path) -> list[State]:
    """Returns the states of a sweep's runs, from its record."""
    states = {plan.name: State(plan.name) for plan in plans}
    # Full disks and kills leave incomplete lines.
    for row in read_rows(workdir / RECORD, "run", "event", skip=True):
        if row["run"] in states:
            states[row["run"]] = states[row["run"]].after(row)
    return list(states.values())


def table(states: Sequence[State], workdir: Path) -> Table:
    """Returns the states, with the runs' steps and accuracies, as a table."""
    results = [_result(state, workdir / state.name) for state in states]
    columns = (
        "run",
        "state",
        "attempts",
        "host",
        "step",
        f"test {tables.metric_of(results)} (%)",
        "s",
        "reason",
    )
    rows = []
    for state, result in zip(states, results, strict=True):
        step = _last_step(workdir / state.name)
        score = result.get("test_accuracy")
        rows.append(
            (
                state.name,
                state.what,
                str(state.attempts or ""),
                state.host,
                "" if step is None else str(step),
                "" if score is None else f"{100 * score:.1f}",
                "" if state.seconds is None else f"{state.seconds:.0f}",
                state.reason,
            )
        )
    return Table(columns, rows)


def _result(state: State, folder: Path) -> dict[str, Any]:
    """Returns the result of a finished run; empty for any other."""
    file = folder / "result.json"
    return read_json(file) if state.what == "finished" and file.exists() else {}


def _last_step(folder: Path) -> int | None:
    """Returns the last step that a run has recorded, if any."""
    file = folder / "metrics.jsonl"
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


class Board:
    """Shows the states while a sweep runs, and writes them to ``status.md``.

    On a terminal the table is redrawn in place; elsewhere each change is one line.
    """

    def __init__(self, plans: Sequence[Planned], workdir: Path):
        self._plans, self._workdir = plans, workdir
        self._shown: dict[str, str] = {}
        self._next = 0.0
        console = rich.console.Console(stderr=True)
        self._live = None
        if console.is_terminal:
            self._live = rich.live.Live(console=console, auto_refresh=False)

    def __enter__(self) -> "Board":
        if self._live:
            self._live.start()
        self.update(now=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.update(now=True)
        if self._live:
            self._live.stop()

    def update(self, now: bool = False) -> None:
        """Reads the states again, if they are due."""
        if not now and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY
        states = read(self._plans, self._workdir)
        current = table(states, self._workdir)
        write_atomically(self._workdir / "status.md", tables.markdown(current) + "\n")
        if self._live:
            self._live.update(_drawn(current.without_empty_columns()), refresh=True)
        else:
            self._print_changes(states)

    def _print_changes(self, states: Sequence[State]) -> None:
        for state in states:
            if state.what not in ("waiting", self._shown.get(state.name)):
                reason = f": {state.reason}" if state.reason else ""
                print(f"{state.name}: {state.what}{reason}", file=sys.stderr)
            self._shown[state.name] = state.what


def _drawn(states: Table) -> rich.table.Table:
    """Returns the table for a terminal of any width; long cells wrap."""
    drawn = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in states.columns:
        drawn.add_column(name, overflow="fold")
    for row in states.rows:
        drawn.add_row(*map(rich.markup.escape, row))
    return drawn
