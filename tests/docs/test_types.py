"""The public API has types, so that users can check their own code against it."""

import subprocess
import sys
from pathlib import Path

import pytest

import audiodd_jax

ROOT = Path(audiodd_jax.__file__).parents[1]
USES = """
import audiodd_jax

config = audiodd_jax.for_dataset("tones", coreset__samples_per_class=1, seed=3)
reveal_type(config.seed)
run = audiodd_jax.distill(config, "runs/library")
reveal_type(run.coreset)
coreset = audiodd_jax.load_coreset("coreset.npz")
reveal_type(coreset.num_bytes)
reveal_type(audiodd_jax.evaluate(coreset))
audiodd_jax.load_coreset(3)
run.coreste
"""


def mypy(*arguments):
    command = [sys.executable, "-m", "mypy", "--no-color-output", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_type_checkers_see_all_that_is_exported():
    """Names that are resolved on first use are imported for type checkers too."""
    source = (ROOT / "audiodd_jax/__init__.py").read_text()
    for name, module in audiodd_jax._EXPORTS.items():
        line = f"from audiodd_jax.{module} import {name} as {name}\n"
        assert line in source


@pytest.mark.slow
def test_public_api_is_clean():
    done = mypy()
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_users_code_is_checked_against_the_api(tmp_path):
    """The checker infers types and reports mistakes."""
    (tmp_path / "uses.py").write_text(USES)
    config = ROOT / "pyproject.toml"
    done = mypy("--config-file", str(config), str(tmp_path / "uses.py"))
    lines = [
        line.split(": ", 1)[1] for line in done.stdout.splitlines() if ": " in line
    ]
    types = [line.split('"')[1] for line in lines if "Revealed" in line]
    assert types[0].removeprefix("builtins.") == "int"
    assert types[1] == "audiodd_jax.coreset.file.Coreset"
    assert types[2].removeprefix("builtins.") == "int"
    assert types[3].endswith(".Evaluation]")
    errors = [line for line in lines if line.startswith("error")]
    assert len(errors) == 2, done.stdout
    assert "load_coreset" in errors[0]
    assert "coreste" in errors[1]
