"""Measures the compilation time of the quickstart's run, without and with the cache.

    python experiments/benchmarks/compile.py

Tracing and lowering are included. Each run is a process of its own, and the first one
starts with an empty cache.
"""

import collections
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import app, flags

_RUN = flags.DEFINE_string("run", "", "run once in this folder; print JSON")
_COMMAND = ("distill", "--dataset=tones", "--samples_per_class=5")


def run(folder):
    import jax

    spent = collections.Counter()
    listen = lambda event, seconds, **_: spent.update({event: seconds})
    jax.monitoring.register_event_duration_secs_listener(listen)
    from audiodd_jax.commands import main as main_lib

    main_lib.main([*_COMMAND, f"--workdir={folder}/run", f"--cache_dir={folder}/cache"])
    parts = {key: value for key, value in spent.items() if "/compile/" in key}
    print(json.dumps(parts))


def main(_):
    if _RUN.value:
        run(_RUN.value)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in ("first", "with the cache"):
            command = [sys.executable, __file__, f"--run={folder}"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            parts = json.loads(done.stdout.splitlines()[-1])
            label = ", ".join(f"{k.split('/')[-1]} {v:.1f}" for k, v in parts.items())
            print(f"{name}: {sum(parts.values()):.1f} s ({label})")
            subprocess.run(["rm", "-r", str(Path(folder) / "run")], check=True)


if __name__ == "__main__":
    app.run(main)
