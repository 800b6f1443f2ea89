"""The accelerator table, in its smallest form."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.optimized
def test_the_table_of_this_machine(tmp_path):
    script = [sys.executable, str(REPOSITORY / "experiments" / "accelerator.py")]
    features = tmp_path / "tones.npz"
    commands = (
        [f"--pack={features}"],
        [f"--features={features}", f"--out={tmp_path / 'results'}"],
    )
    for arguments in commands:
        command = [*script, "--quick", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results" / "accelerator.json").read_text())
    assert results["left_out"] == []
    assert not [part for part in results["parts"] if "error" in part]
    step, run = results["parts"][:2]
    assert step["seconds"]["ours"] > 0
    assert 0 < step["share_of_peak"] < 1
    assert step["compiled_bytes"] > 0
    assert (run["data"], run["steps"]) == ("tones", 2)
    text = (tmp_path / "results" / "accelerator.md").read_text()
    assert text == done.stdout.rstrip("\n") + "\n"
    assert "| 4,1,16,5,16,16 | float32 |" in text
