"""What a wait is for, and how long it has been, on a terminal; elsewhere nothing."""

import contextlib
import threading
from collections.abc import Iterator

from tqdm import tqdm

from audiodd_jax.runtime import multiprocess

# Seconds between two refreshes of a bar on which nothing finishes.
_TICK = 1.0


def bar(total: int | None = None, **options: object) -> tqdm:
    """A progress bar of process 0, drawn where the output is a terminal.

    Args:
      total: number of units.
      **options: of tqdm.
    """
    # tqdm draws no bar where the output is not a terminal if ``disable`` is None.
    disable = None if multiprocess.is_process_zero() else True
    return tqdm(total=total, disable=disable, **options)


@contextlib.contextmanager
def ticking(shown: tqdm) -> Iterator[tqdm]:
    """Keeps the seconds of a bar going while a program compiles; closes it at the end.

    Args:
      shown: the bar.
    """
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
def waiting(what: str) -> Iterator[None]:
    """Shows what a block does and its seconds, until it ends.

    Args:
      what: in a few words, such as ``scoring``.
    """
    shown = bar(desc=what, bar_format="{desc}, {elapsed}", leave=False)
    with ticking(shown):
        yield
