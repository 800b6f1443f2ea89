"""The README's Python works as printed."""

import importlib.util
import re
from pathlib import Path

import pytest
import soundfile

import audiodd_jax

HAS_TORCH = importlib.util.find_spec("torch") is not None
README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_python_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    """In a folder that has the quickstart's run, or one like it."""
    monkeypatch.chdir(tmp_path)
    config = audiodd_jax.for_dataset(
        "tones", "quick", coreset__samples_per_class=5, loop__steps=2
    )
    audiodd_jax.distill(config, "runs/quickstart")
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 5
    names: dict = {}
    for block in blocks:
        if "import torch" in block.replace("numpy as np, ", "") and not HAS_TORCH:
            continue  # the extra `benchmark` brings it
        exec(compile(block, str(README), "exec"), names)
    assert names["images"].shape[0] == names["labels"].shape[0] == 50
    assert soundfile.info("first.wav").duration == 1.0
    assert " % " in capsys.readouterr().out.replace("%\n", "% ")


def test_the_sweep_that_it_prints_is_the_example():
    (printed,) = re.findall(r"```python\n(COMMON.*?)```", README.read_text(), re.DOTALL)
    example = (README.parent / "launch" / "sweep" / "sizes.py").read_text()
    assert printed in example


def test_its_pictures_are_there():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README.read_text())
    assert pictures
    assert all((README.parent / picture).is_file() for picture in pictures)


def test_the_commands_it_names_exist():
    from audiodd_jax.cli import main

    text = README.read_text()
    named = set(re.findall(r"audiodd ([a-z]+)", text)) - {"help"}
    assert named
    assert named <= set(main.COMMANDS)
    for flag in set(re.findall(r"--config\.([a-z_.]+)", text)) - {"group.field"}:
        from audiodd_jax.config import Config, fields

        assert flag in set(fields.names(Config()))
