"""The scripts of ``experiments/``: bad input ends them with one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
# What each is given that cannot be, by script.
BAD = {
    "accelerator": ("--features=nowhere.npz",),
    "active_table": ("--dataset=nothing",),
    "evaluation_table": ("--dataset=nothing",),
    "example_coreset": ("--run=nowhere",),
    "inversion_table": ("--dataset=nothing",),
    "krr_table": ("--case=nothing:5",),
    "methods_table": ("--case=nothing:5",),
    "recipe_search": ("--dataset=nothing",),
    "table": ("--dataset=nothing",),
}


def test_every_script_is_asked():
    scripts = {
        path.stem for path in EXPERIMENTS.glob("*.py") if "app.run" in path.read_text()
    }
    assert scripts == BAD.keys()


@pytest.mark.nightly  # half a minute of starting Python
@pytest.mark.parametrize("script", BAD)
def test_bad_input_ends_with_one_sentence(script, tmp_path):
    command = [sys.executable, EXPERIMENTS / f"{script}.py", *BAD[script]]
    ran = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode
    errors = [line for line in ran.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert errors[0].startswith("audiodd: error: ")
    assert "Traceback" not in ran.stderr
