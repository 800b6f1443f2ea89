"""The printed commands take a newcomer from a folder of sounds to PyTorch."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from audiodd_jax.commands import main

REPOSITORY = Path(__file__).parents[2]
README = REPOSITORY / "README.md"
USAGE = REPOSITORY / "launch" / "usage.md"
HAS_TORCH = importlib.util.find_spec("torch") is not None


def commands(page, beginning):
    """The commands of a page's first code block with a line that begins so."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    block = next(block for block in blocks if f"\n{beginning}" in f"\n{block}")
    return block.splitlines()


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.skipif(not HAS_TORCH, reason="needs PyTorch: pip install torch")
def test_from_a_folder_to_pytorch(sound_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = commands(README, "audiodd prepare --dataset=folder")
    words = [line.split()[1] for line in lines]
    assert words == ["prepare", "distill", "evaluate", "report", "predict"]
    export = commands(USAGE, "audiodd export runs/quickstart")
    lines += [line.replace("runs/quickstart", "runs/mine") for line in export]
    for line in lines:
        for place in ("path/to/sounds", "path/to/new/sounds"):
            line = line.replace(place, str(sound_folder))
        program, *arguments = shlex.split(line)
        if program == "audiodd":
            # Few steps and networks: the sounds are two tones.
            few = ["--steps=10", "--config.evaluation.networks=2"]
            main.main([*arguments, *(few if arguments[0] == "distill" else [])])
    printed = capsys.readouterr().out
    (ours,) = re.findall(r"test accuracy, distilled +([\d.]+)", printed)
    script = arguments[0]
    assert script == "runs/mine/export/pytorch/train.py"
    done = subprocess.run(
        [sys.executable, script, "--steps=60", "--seeds=2"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    theirs = float(done.stdout.splitlines()[-1].split()[2])
    assert Path("runs/mine-report/index.html").exists()
    table = Path("predictions.csv").read_text().splitlines()
    assert len(table) == 1 + 24
    right = [row.split(",")[0].split("/")[-2] == row.split(",")[3] for row in table[1:]]
    assert np.mean(right) > 0.9
    assert float(ours) > 90
    assert theirs > 90
