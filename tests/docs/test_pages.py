"""What the documents print works as printed."""

import re
import shlex
from pathlib import Path

import pytest
import soundfile

import audiodd_jax
from audiodd_jax.commands import main
from audiodd_jax.config import fields
from audiodd_jax.flags import parse
from audiodd_jax.flags.definitions import ARGUMENTS

REPOSITORY = Path(__file__).parents[2]
README = REPOSITORY / "README.md"
DOCUMENTS = [
    README,
    *(REPOSITORY / name for name in ("launch/README.md", "experiments/RESULTS.md")),
    REPOSITORY / "BUILD_NOTES.md",
    REPOSITORY / "audiodd_jax/CHANGES.md",
]


@pytest.mark.slow
def test_python_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    """In a folder that has the quickstart's run, or one like it."""
    monkeypatch.chdir(tmp_path)
    config = audiodd_jax.for_dataset(
        "tones", "quick", coreset__samples_per_class=5, loop__steps=2
    )
    audiodd_jax.distill(config, "runs/quickstart")
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 3
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert names["images"].shape[0] == names["labels"].shape[0] == 50
    assert soundfile.info("first.wav").duration == 1.0
    assert " % " in capsys.readouterr().out.replace("%\n", "% ")


def test_the_sweep_that_is_printed_is_the_example():
    text = (REPOSITORY / "launch" / "README.md").read_text()
    (printed,) = re.findall(r"```python\n(COMMON.*?)```", text, re.DOTALL)
    assert printed in (REPOSITORY / "launch" / "sweep" / "sizes.py").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_pictures_links_and_scripts_are_there(document):
    text = document.read_text()
    links = re.findall(r"\]\((?!http)(.*?)\)", text)
    scripts = re.findall(r"(?:experiments|launch)/[\w/]+\.(?:py|sh|sbatch)", text)
    missing = [name for name in links if not (document.parent / name).exists()]
    missing += [name for name in scripts if not (REPOSITORY / name).exists()]
    assert not missing


def test_the_readme_has_pictures_and_fits_its_length():
    text = README.read_text()
    assert re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(text.splitlines()) <= 220
    notes = (REPOSITORY / "BUILD_NOTES.md").read_text()
    assert len(notes.splitlines()) <= 500


def printed_commands():
    """Every ``audiodd`` command line of a code block."""
    for document in DOCUMENTS:
        text = document.read_text().replace("\\\n", " ")
        for line in re.findall(r"^audiodd .*$", text, re.MULTILINE):
            yield tuple(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize("words", sorted(set(printed_commands())), ids=" ".join)
def test_printed_commands_parse(words):
    command, *arguments = words
    if command == "help":
        return
    assert command in main.COMMANDS
    if command in ARGUMENTS:
        parse.parse_arguments(command, arguments)
        return
    base = lambda values: audiodd_jax.Config()
    if command in ("prepare", "distill", "active", "train"):
        base = parse.dataset_config
    values, _, _ = parse.parse(command, arguments, base)
    assert values


def test_settings_that_are_named_exist():
    names = set(fields.names(audiodd_jax.Config()))
    for document in DOCUMENTS:
        found = re.findall(r"--config\.([a-z_.]+)", document.read_text())
        assert set(found) - {"group.field"} <= names, document
