"""Supervises one process of a run of several, and explains how it ended.

When another process of the run dies, JAX's runtime aborts this one from its own thread
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
from collections.abc import Sequence

from audiodd_jax.runtime import signals

_CHILD = "AUDIODD_SUPERVISED"
# The runtime's fatal message, which its stack trace follows.
_FATAL = re.compile(rb"^F\d{4} .*distributed service detected fatal errors")
LOST = (
    "another process of this run is gone or cannot be reached; the run directory keeps "
    "the last checkpoint, and the same command resumes from it"
)


def child_command(arguments: Sequence[str]) -> list[str]:
    """Returns the command line of a child process that runs ``audiodd``."""
    return [sys.executable, "-P", "-m", "audiodd_jax", *arguments]


def child_variables() -> dict[str, str]:
    """Returns variables of a child that imports as this process and ends with it."""
    path = os.pathsep.join(filter(None, sys.path))
    return {_CHILD: str(os.getpid()), "PYTHONPATH": path}


def is_needed() -> bool:
    """Returns whether this process has no supervisor yet."""
    return _CHILD not in os.environ


def follow() -> None:
    """Ends this process when its supervisor, if any, is killed, or already has been."""
    if is_needed():
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
    for signum in signals.stop_signals():
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
