"""The table of flags agrees with the settings, the commands and their files."""

import importlib

import pytest

from audiodd_jax import command_line
from audiodd_jax.config import Config, fields
from audiodd_jax.flags import COMMANDS

FLAGS = [(name, flag) for name, command in COMMANDS.items() for flag in command.flags]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_a_file(command):
    module = importlib.import_module(f"audiodd_jax.commands.{command}")
    assert callable(module.run)
    assert module.__doc__.startswith(f"``audiodd {command}``: ")


def test_flags_set_settings_that_exist():
    known = set(fields.names(Config()))
    for command, flag in FLAGS:
        assert set(flag.sets) <= known, (command, flag.name)


def test_a_flag_that_sets_a_setting_has_no_default_of_its_own():
    for command, flag in FLAGS:
        assert flag.default is None or not flag.sets, (command, flag.name)


def test_flags_override_the_base_and_settings_override_flags():
    line = command_line.parse(
        "distill", ["--steps=3", "--seed=4", "--config.loop.steps=5"]
    )
    config = line.configure(Config(seed=1))
    assert (config.loop.steps, config.seed) == (5, 4)
    assert set(line.changed("loop")) == {"loop.steps"}
