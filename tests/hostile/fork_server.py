"""A process that has imported everything and forks itself for each command.

Importing takes seconds, so a test of a hundred killed commands would mostly kill
imports. JAX's backend starts after the fork, as it must. It reads a request per line:

    {"argv": [...], "environment": {...}, "log": PATH, "kill_after": SECONDS or null,
     "victim": NAME}

and answers with the exit ``status``, negative for a signal, the ``seconds`` of the
command's life, and whether something was ``killed``. The victim is the command's
``process``, its ``group`` (as when a machine loses power), or the ``run`` that a sweep
has started.
"""

import contextlib
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import matplotlib.figure
import pytest
import tensorboardX  # noqa: F401 (imported late by the package)

import audiodd_jax
from audiodd_jax.commands import main
from audiodd_jax.runtime import lease
from audiodd_jax.sweep import local

for name in ("s3fs", "gcsfs"):  # imported late too
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
for module in pkgutil.walk_packages(audiodd_jax.__path__, "audiodd_jax."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)

# Drawing takes half the time of a tiny run and does not affect its state.
# Loops of threads that a fork lacks: to collect them would close files of the fork.
_loops = []
matplotlib.figure.Figure.savefig = lambda _, path, **__: Path(path).write_bytes(b"")

if "AUDIODD_TEST_INSTANT_LABELLING" in os.environ:
    sys.path.append(str(Path(__file__).parents[1] / "helpers"))
    importlib.import_module("labelling").instant(pytest.MonkeyPatch())


def command(argv, output, environment=None, leads=False):
    """Runs a command in a fork, a group leader if ``leads``; returns the process id."""
    if "fsspec" in sys.modules:
        _loops.extend(sys.modules["fsspec"].asyn.loop)
    child = os.fork()
    if child:
        return child
    lease._leases.clear()  # those of the sweep that has started this run
    if leads:
        os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, 256)  # locks in particular must not be inherited
    os.environ.update(environment or {})
    sys.argv = ["audiodd", *argv]
    try:
        main.run()
    except SystemExit as ended:
        sys.stdout.flush()
        os._exit(ended.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(99)
    sys.stdout.flush()
    os._exit(0)


class Forked:
    """Replaces the process that a sweep starts for a run."""

    def __init__(self, argv, *, env, stdout, **_):
        self.pid = command(argv[argv.index("audiodd_jax") + 1 :], stdout.fileno(), env)
        self._code = None

    def poll(self):
        """Returns the exit code, or None while it runs."""
        if self._code is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if found else None
        return self._code

    def send_signal(self, signum):
        """Sends a signal."""
        os.kill(self.pid, signum)


local.subprocess = types.SimpleNamespace(Popen=Forked, DEVNULL=subprocess.DEVNULL)


def kill(child, victim):
    """Kills a command or the runs it started; returns whether any process existed."""
    if victim == "group":
        os.killpg(child, signal.SIGKILL)
    elif victim == "process":
        os.kill(child, signal.SIGKILL)
    else:
        # Each thread of a sweep starts runs of its own.
        threads = Path(f"/proc/{child}/task").glob("*/children")
        runs = [run for thread in threads for run in thread.read_text().split()]
        for run in runs:
            os.kill(int(run), signal.SIGKILL)
        return bool(runs)
    return True


def serve(request):
    """Runs the command of a request, and kills it at the requested time."""
    began, is_killed = time.monotonic(), False
    with open(request["log"], "ab") as log:
        given = request["argv"], log.fileno(), request["environment"]
        child = command(*given, leads=True)
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        seconds = time.monotonic() - began
        if not is_killed and seconds > (request["kill_after"] or float("inf")):
            is_killed = kill(child, request["victim"])
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(ended[1])
    is_killed &= code == -signal.SIGKILL or request["victim"] == "run"
    seconds = time.monotonic() - began
    return {"status": code, "seconds": seconds, "killed": is_killed}


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)
