"""Progress of process 0: bars on a terminal and in a notebook, log lines elsewhere."""

import contextlib
import io
import logging
import math
import sys
import threading
from collections.abc import Iterator

from tqdm import tqdm

from audiodd_jax.runtime import multiprocess

_log = logging.getLogger(__name__)

# Seconds between two refreshes of a bar on which nothing finishes.
_TICK = 1.0
# Seconds until the first line in a log, and the most between two.
_FIRST_LINE, _BETWEEN_LINES = 5.0, 60.0
# Of a total, and without one.
_LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s, {rate_fmt}, {remaining} left{postfix}"
_NONE_YET = "{desc}: {n_fmt} of {total_fmt} {unit}s, {elapsed} so far"
_COUNT = "{desc}: {n_fmt} {unit}s, {rate_fmt}, {elapsed} so far"


def is_drawn() -> bool:
    """Returns whether bars are drawn: on a terminal, and below a notebook's cell."""
    is_terminal = getattr(sys.stderr, "isatty", lambda: False)()
    return is_terminal or "ipykernel" in sys.modules


@contextlib.contextmanager
def bar(total: int | None = None, **options: object) -> Iterator[tqdm]:
    """Shows a progress bar of process 0, or logs lines, until the block ends.

    Its clock ticks also while a program compiles. Work of a few seconds logs no line;
    longer work logs fewer and fewer.
    """
    is_bar, is_hidden = is_drawn(), not multiprocess.is_process_zero()
    if not is_bar:  # it counts, and draws where nobody looks
        options |= {"file": io.StringIO(), "mininterval": math.inf}
    shown = tqdm(total=total, disable=is_hidden, **options)
    line = options.get("bar_format") or (_LINE if total else _COUNT)
    done = threading.Event()

    def tick() -> None:
        due = _FIRST_LINE
        while not done.wait(_TICK):
            if is_bar:
                shown.refresh()
            elif (seen := shown.format_dict)["elapsed"] >= due:
                form = line if seen["n"] or line != _LINE else _NONE_YET
                _log.info(tqdm.format_meter(**seen | {"bar_format": form}))
                due += min(due, _BETWEEN_LINES)

    thread = threading.Thread(target=tick, daemon=True)
    if not is_hidden:
        thread.start()
    try:
        yield shown
    finally:
        done.set()
        if thread.ident:
            thread.join()
        shown.close()


@contextlib.contextmanager
def waiting(activity: str) -> Iterator[None]:
    """Shows an activity, such as ``scoring``, and its seconds until the block ends."""
    with bar(desc=activity, bar_format="{desc}, {elapsed}", leave=False):
        yield
