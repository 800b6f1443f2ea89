"""Signals that ask to stop are deferred until the state can be saved."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP")
    if hasattr(signal, name)
)


class Interrupted(Exception):  # noqa: N818 (it is no error)
    """The run was asked to stop, and has saved its state."""

    def __init__(self, signum: int, step: int, unit: str = "step"):
        """Args: the signal, the last step that was saved, and the unit of steps."""
        name = signal.Signals(signum).name
        super().__init__(f"stopped by {name} after {unit} {step}")
        self.signum = signum
        self.step = step


def stop_signals() -> list[signal.Signals]:
    """Returns the stop signals that this process doesn't ignore (nohup: SIGHUP)."""
    return [s for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]


@contextmanager
def deferred_signals() -> Iterator[Callable[[], int]]:
    """Defers SIGTERM, SIGINT and SIGHUP, except those that this process ignores.

    Yields:
      A function that returns the first signal that arrived, or 0.
    """
    received: list[int] = []
    # Only the main thread receives signals.
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    handle = lambda signum, frame: received.append(signum)
    before = {signum: signal.signal(signum, handle) for signum in stop_signals()}
    try:
        yield lambda: received[0] if received else 0
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
