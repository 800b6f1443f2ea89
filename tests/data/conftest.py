"""Miniatures of published datasets in their own layouts."""

import published
import pytest


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands") / "speech_commands_v0.02"
    published.write_speech_commands(
        folder, [*published.WORDS, "on", "off", "cat", "tree"]
    )
    return folder


@pytest.fixture(scope="session")
def urban(tmp_path_factory):
    folder = tmp_path_factory.mktemp("urban") / "UrbanSound8K"
    published.write_urbansound8k(folder)
    return folder


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("environment") / "ESC-50-master"
    published.write_esc50(folder, per_fold=2)
    return folder
