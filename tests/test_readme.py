"""The README's Python works as printed."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_python_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 2
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert names["images"].shape[0] == names["labels"].shape[0] == 10
    assert " % " in capsys.readouterr().out.replace("%\n", "% ")


def test_the_commands_it_names_exist():
    from audiodd_jax import cli

    text = README.read_text()
    named = set(re.findall(r"audiodd ([a-z]+)", text)) - {"help"}
    assert named
    assert named <= set(cli.COMMANDS)
    for flag in set(re.findall(r"--config\.([a-z_.]+)", text)) - {"group.field"}:
        from audiodd_jax import settings
        from audiodd_jax.config import Config

        assert flag in set(settings.names(Config()))
