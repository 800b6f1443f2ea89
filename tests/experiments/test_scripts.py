"""The scripts of ``experiments/`` report bad input in one sentence."""

import json
import re
import subprocess
import sys

import pytest

# Invalid arguments by script.
BAD = {
    "accelerator": ("--features=nowhere.npz",),
    "active_table": ("--dataset=nothing",),
    "aligned_table": ("--dataset=nothing",),
    "bytes_picture": ("nowhere.jsonl",),
    "bytes_table": ("--dataset=nothing",),
    "continue_table": ("--case=nothing:1",),
    "evaluation_table": ("--dataset=nothing",),
    "encoder_table": ("--dataset=nothing",),
    "example_coreset": ("--run=nowhere",),
    "inversion_table": ("--dataset=nothing",),
    "label_noise": ("--dataset=nothing",),
    "krr_table": ("--case=nothing:5",),
    "methods_table": ("--case=nothing:5",),
    "recipe_search": ("--dataset=nothing",),
    "table": ("--dataset=nothing",),
    "unequal_table": ("--data_dir=nowhere",),
}


def test_every_script_is_tested(folder):
    scripts = {
        path.stem for path in folder.glob("*.py") if "app.run" in path.read_text()
    }
    assert scripts == BAD.keys()


@pytest.mark.nightly  # half a minute of starting Python
@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_with_one_sentence(name, folder, tmp_path):
    command = [sys.executable, folder / f"{name}.py", *BAD[name]]
    ran = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode
    errors = [line for line in ran.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert errors[0].startswith("audiodd: error: ")
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--sizes=default", "audiodd: .*outcomes.json has results of other settings"),
        ("--training_steps=-1", "training_steps=-1: -1 is not a non-negative integer"),
        ("--samples_per_class=5,x", "samples_per_class.*must be whole numbers above 0"),
        ("--acquisitions=bold", "acquisitions.*must be among random, "),
    ],
)
def test_a_refused_table_prints_one_sentence_and_loses_nothing(
    flag, says, folder, tmp_path
):
    kept = tmp_path / "tones" / "convnet" / "outcomes.json"
    kept.parent.mkdir(parents=True)
    settings = {"sizes": "cpu", "training_steps": 500}
    kept.write_text(json.dumps({"settings": settings, "outcomes": []}))
    before = kept.read_bytes()
    command = [sys.executable, folder / "table.py", f"--workdir={tmp_path}", flag]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode
    assert re.search(says, ran.stderr + ran.stdout)
    assert "Traceback" not in ran.stderr
    assert kept.read_bytes() == before
    assert list(kept.parent.iterdir()) == [kept]
