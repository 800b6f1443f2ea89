"""Stopping politely: a signal is noted, and acted on where the state can be saved."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):  # noqa: N818 (it is no error)
    """The run was asked to stop, and saved its state."""

    def __init__(self, signum: int, step: int, unit: str = "step"):
        """Args: the signal's number, the last that was saved, and what is counted."""
        name = signal.Signals(signum).name
        super().__init__(f"stopped by {name} after {unit} {step}")
        self.signum = signum
        self.step = step


@contextmanager
def noted_signals() -> Iterator[Callable[[], int]]:
    """While it lasts, SIGTERM and SIGINT are only noted.

    Yields:
      A function that tells the first signal that came, 0 for none.
    """
    received: list[int] = []
    # Signals reach the main thread alone; elsewhere there is nothing to install.
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    handle = lambda signum, frame: received.append(signum)
    before = {signum: signal.signal(signum, handle) for signum in SIGNALS}
    try:
        yield lambda: received[0] if received else 0
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
