"""The state of all runs of a sweep, from their directories and the sweep's record."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from audiodd_jax.report import tables
from audiodd_jax.report.tables import Table
from audiodd_jax.runtime.files import write_atomically
from audiodd_jax.runtime.run_log import last_step, test_accuracy
from audiodd_jax.sweep.plan import Planned
from audiodd_jax.sweep.run_process import RECORD

# Seconds between two looks at the runs' steps.
_EVERY = 2.0


class State(NamedTuple):
    """How far a run is.

    Attributes:
      name: of the run.
      what: ``waiting``, ``running``, ``finished``, ``failed``, ``cut`` or ``killed``.
      attempts: processes that were started for it, in all.
      host: where the last one ran.
      flags: of the last one.
      reason: why it ended without a result.
      seconds: that its last attempt took, once it has ended.
    """

    name: str
    what: str = "waiting"
    attempts: int = 0
    host: str = ""
    flags: tuple[str, ...] = ()
    reason: str = ""
    seconds: float | None = None


def read(plans: Sequence[Planned], workdir: Path) -> list[State]:
    """The states of a sweep's runs, as its record has them."""
    states = {plan.name: State(plan.name) for plan in plans}
    file = workdir / RECORD
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # cut short by a full disk or a kill
        state = states.get(row["run"])
        if state is None:
            continue
        if row["event"] == "queued":
            state = state._replace(what="waiting", reason="", seconds=None)
        elif row["event"] == "started":
            state = state._replace(
                what="running",
                attempts=state.attempts + 1,
                host=row["host"],
                flags=tuple(row["flags"]),
            )
        else:
            state = state._replace(
                what=row["event"],
                reason=row.get("reason", ""),
                seconds=row.get("seconds", state.seconds),
            )
        states[row["run"]] = state
    return list(states.values())


def table(states: Sequence[State], workdir: Path) -> Table:
    """The states with the runs' steps and accuracies."""
    columns = (
        "run",
        "state",
        "attempts",
        "host",
        "step",
        "test accuracy (%)",
        "s",
        "reason",
    )
    rows = []
    for state in states:
        step = last_step(workdir / state.name)
        score = (
            test_accuracy(workdir / state.name) if state.what == "finished" else None
        )
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


class Board:
    """Shows the states while a sweep runs, and keeps them in ``status.md``.

    On a terminal the table is drawn over itself; elsewhere a line tells each change.
    """

    def __init__(self, plans: Sequence[Planned], workdir: Path):
        self._plans, self._workdir = plans, workdir
        self._drawn = 0
        self._shown: dict[str, str] = {}
        self._next = 0.0

    def update(self, now: bool = False) -> None:
        """Looks at the runs again, if it is time to."""
        if not now and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY
        states = read(self._plans, self._workdir)
        made = table(states, self._workdir)
        write_atomically(self._workdir / "status.md", tables.markdown(made) + "\n")
        if sys.stderr.isatty():
            self._draw(made)
            return
        for state in states:
            if self._shown.get(state.name) != state.what:
                if state.what != "waiting":
                    reason = f": {state.reason}" if state.reason else ""
                    print(f"{state.name}: {state.what}{reason}", file=sys.stderr)
                self._shown[state.name] = state.what

    def _draw(self, made: Table) -> None:
        cells = [made.columns, *made.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(made.columns))]
        lines = [
            "  ".join(
                text.ljust(width) for text, width in zip(row, widths, strict=True)
            )
            for row in cells
        ]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        text = "".join(f"\x1b[2K{line.rstrip()}\n" for line in lines)
        print(up + text, end="", file=sys.stderr, flush=True)
        self._drawn = len(lines)
