"""The command line as a user runs it: tiny runs, processes, and refusals."""

import os
import subprocess
import sys

import pytest

from audiodd_jax.commands import main

FEATURES = [
    "--config.features.n_mels=16",
    "--config.features.frames=16",
    "--config.features.top_db=60",
]
# A distillation of seconds.
TINY = [
    *FEATURES,
    "--config.network.depth=2",
    "--config.network.width=4",
    "--config.loop.batch_size=32",
    "--config.loop.log_every=2",
    "--config.loop.eval_every=4",
    "--config.loop.checkpoint_every=4",
    "--config.evaluation.networks=2",
    "--config.evaluation.width=8",
    "--steps=8",
]
# Active learning of seconds.
NETWORK = [
    "--config.model.depth=2",
    "--config.model.width=4",
    "--config.training.log_every=2",
    "--config.training.checkpoint_every=4",
    "--config.active.passes=2",
    "--steps=4",
]
FEW = ["--config.active.initial=1/class", "--budgets=2/class,3/class"]
# Random clips, scored.
TINY_SELECTION = [
    *("--dataset=tones", "--method=random", "--samples_per_class=1"),
    *("--config.features.n_mels=16", "--config.features.frames=16"),
    *("--config.network.width=4", "--config.network.depth=2"),
    *("--config.evaluation.networks=1", "--config.evaluation.seeds=2"),
]
# For Python: a distillation with labels by a small teacher.
TINY_SETTINGS = {
    "features__n_mels": 8,
    "features__frames": 8,
    "network__depth": 2,
    "network__width": 4,
    "coreset__samples_per_class": 2,
    "loop__steps": 4,
    "loop__batch_size": 32,
    "loop__log_every": 2,
    "loop__eval_every": 2,
    "evaluation__networks": 2,
    "evaluation__width": 4,
    "evaluation__seeds": 1,
    "teacher__networks": 2,
    "teacher__steps": 40,
    "coreset__views": 3,
}


def audiodd(*arguments, cwd=None, **environment):
    """Runs the command in a process of its own; returns the finished process."""
    return subprocess.run(
        [sys.executable, "-m", "audiodd_jax", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=300,
    )


def fails(capsys, *arguments):
    """Runs a command that must fail and returns its one error sentence."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["audiodd", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main.run()
    assert stopped.value.code not in (0, None)
    lines = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("audiodd: error: ")
    ]
    assert len(lines) == 1
    return lines[0].removeprefix("audiodd: error: ")
