"""Signals that ask to stop, deferred until the state is saved, and child processes.

When another process of a run dies, JAX's runtime aborts this one from its own thread
with a stack trace, and none of our code runs any more. So a child process does the
work, and its parent, which takes no part in the run, reports what happened.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

# The runtime's fatal message, which its stack trace follows.
_FATAL = re.compile(rb"^F\d{4} .*distributed service detected fatal errors")
LOST = (
    "another process of this run is gone or cannot be reached; the run directory keeps "
    "the last checkpoint, and the same command resumes from it"
)
# Set in a child to the identifier of its parent, the supervisor.
_CHILD = "AUDIODD_SUPERVISED"
SIGNALS = [s for s in signal.Signals if s.name in ("SIGTERM", "SIGINT", "SIGHUP")]


class Interrupted(Exception):  # noqa: N818 (it is no error)
    """The run was asked to stop, and has saved its state."""

    def __init__(self, signum: int, step: int, unit: str = "step"):
        """Args: the signal, the last step that was saved, and the unit of steps."""
        name = signal.Signals(signum).name
        super().__init__(f"stopped by {name} after {unit} {step}")
        self.signum = signum


def stop_signals() -> list[signal.Signals]:
    """Returns the stop signals that Python may handle.

    They are not those that this process ignores (nohup: SIGHUP), nor those with a
    handler that was not installed from Python, which Python could not put back.
    """
    foreign = (signal.SIG_IGN, None)
    return [s for s in SIGNALS if signal.getsignal(s) not in foreign]


@contextmanager
def deferred_signals() -> Iterator[Callable[[], int]]:
    """Defers the stop signals, as far as Python may handle them here.

    Yields a function that returns the first signal that arrived, or 0.
    """
    received: list[int] = []
    handle = lambda signum, frame: received.append(signum)
    try:
        before = {signum: signal.signal(signum, handle) for signum in stop_signals()}
    except ValueError:  # only the main thread of the main interpreter may set handlers
        before = {}
    try:
        yield lambda: received[0] if received else 0
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def child_command(arguments: Sequence[str]) -> list[str]:
    """Returns the command line of a child process that runs ``audiodd``."""
    return [sys.executable, "-P", "-m", "audiodd_jax", *arguments]


def child_variables() -> dict[str, str]:
    """Returns variables of a child that imports as this process and ends with it."""
    path = os.pathsep.join(filter(None, sys.path))
    return {_CHILD: str(os.getpid()), "PYTHONPATH": path}


def is_supervised() -> bool:
    """Returns whether another process supervises this one."""
    return _CHILD in os.environ


def follow() -> None:
    """Ends this process when its supervisor, if any, is killed, or already has been."""
    if not is_supervised():
        return
    parent = int(os.environ[_CHILD])

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def supervise(arguments: Sequence[str]) -> int:
    """Runs the command line in a child process; returns the code to exit with.

    Signals and the child's output are passed on; one sentence replaces the runtime's
    stack trace.
    """
    child = subprocess.Popen(
        child_command(arguments),
        env={**os.environ, **child_variables()},
        stderr=subprocess.PIPE,
    )
    for signum in stop_signals():
        signal.signal(signum, lambda received, _: child.send_signal(received))
    is_fatal = False
    for line in child.stderr:
        is_fatal = is_fatal or bool(_FATAL.match(line))
        if not is_fatal:
            sys.stderr.buffer.write(line)
            sys.stderr.flush()
    code = child.wait()
    if is_fatal:
        print(f"audiodd: error: {LOST}", file=sys.stderr)
        return 1
    return code if code >= 0 else 128 - code
