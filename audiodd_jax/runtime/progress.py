"""Progress of process 0: bars on a terminal and in a notebook, log lines elsewhere."""

import contextlib
import io
import logging
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


class _Nowhere(io.TextIOBase):
    """Takes what tqdm draws where a bar would be of no use: it still counts."""

    def write(self, text: str) -> int:
        """Drops the text."""
        return len(text)


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
    is_bar = is_drawn()
    file = sys.stderr if is_bar else _Nowhere()
    is_hidden = not multiprocess.is_process_zero()
    shown = tqdm(total=total, disable=is_hidden, file=file, **options)
    done = threading.Event()

    def tick() -> None:
        due = _FIRST_LINE
        while not done.wait(_TICK):
            if is_bar:
                shown.refresh()
            elif (elapsed := shown.format_dict["elapsed"]) >= due:
                _log.info(_line(shown))
                due = elapsed + min(elapsed, _BETWEEN_LINES)

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


def _line(shown: tqdm) -> str:
    """Returns what a bar shows, in words: what is done, the rate and the time left."""
    elapsed, total = shown.format_dict["elapsed"], shown.total
    number = tqdm.format_sizeof if shown.unit_scale else "{:,}".format
    unit = shown.unit if shown.unit_scale else f" {shown.unit}s"
    parts = []
    if total or shown.n:
        of_total = f" of {number(total)}" if total else ""
        parts.append(f"{number(shown.n)}{of_total}{unit}")
    if rate := (shown.n - shown.initial) / elapsed:
        speed = number(rate) if shown.unit_scale else f"{rate:.3g}"
        parts.append(f"{speed}{unit} per second")
        if total:
            left = tqdm.format_interval((total - shown.n) / rate)
            parts.append(f"{left} left")
    else:
        parts.append(f"{tqdm.format_interval(elapsed)} so far")
    if shown.postfix:
        parts.append(shown.postfix)
    return f"{shown.desc.removesuffix(': ')}: {', '.join(parts)}"


@contextlib.contextmanager
def waiting(activity: str) -> Iterator[None]:
    """Shows an activity, such as ``scoring``, and its seconds until the block ends."""
    with bar(desc=activity, bar_format="{desc}, {elapsed}", leave=False):
        yield
