"""Progress bars and waits on a terminal; nothing elsewhere."""

import contextlib
import threading
from collections.abc import Iterator

from tqdm import tqdm

from audiodd_jax.runtime import multiprocess

# Seconds between two refreshes of a bar on which nothing finishes.
_TICK = 1.0


@contextlib.contextmanager
def bar(total: int | None = None, **options: object) -> Iterator[tqdm]:
    """Shows a progress bar of process 0 on a terminal, until the block ends.

    Its clock ticks also while a program compiles.
    """
    # With ``disable=None`` tqdm draws no bar where the output is not a terminal.
    disable = None if multiprocess.is_process_zero() else True
    shown = tqdm(total=total, disable=disable, **options)
    done = threading.Event()

    def tick() -> None:
        while not done.wait(_TICK):
            shown.refresh()

    thread = threading.Thread(target=tick, daemon=True)
    if not shown.disable:
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
