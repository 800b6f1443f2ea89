"""Names of accelerators, and compilers that misbehave."""

import importlib.util
import sys

import pytest
from packaging.requirements import Requirement

from audiodd_jax.config import names
from audiodd_jax.errors import UserError
from audiodd_jax.forecast import compilers, targets

V5E = targets.parse("v5e")
FAKE = """
import json, os, sys, time
from audiodd_jax.forecast import compilers
request = json.load(sys.stdin)
names = ["first", "second", "third"]
{begin}
compilers.answer({{"programs": names}})
for name in names[request["skip"]:]:
    if name == "second":
        {second}
    print("a compiler's own line")
    compilers.answer({{"said": name}})
"""


def test_data_sheets_are_complete_and_plausible():
    for name, chip in targets.CHIPS.items():
        assert set(chip.peak) == {"float32", "tf32", "bfloat16"}, name
        assert chip.peak["float32"] < chip.peak["tf32"] < chip.peak["bfloat16"]
        assert 15e9 < chip.memory < 150e9
        # Operations per byte above which arithmetic bounds a program.
        assert 100 < chip.peak["bfloat16"] / chip.bandwidth < 600
        assert chip.source.split("/")[0] in ("cloud.google.com", "nvidia.com")


@pytest.mark.parametrize(
    ("text", "size", "again"),
    [
        ("v5e", 1, "v5e"),
        ("V5E:2x4", 8, "v5e:2x4"),
        ("v5e:1x1", 1, "v5e"),
        ("v5p:2x2x1", 4, "v5p:2x2x1"),
        ("v4:4x4x8", 128, "v4:4x4x8"),
        ("h100", 1, "h100"),
        ("h200:16", 16, "h200:16"),
    ],
)
def test_targets_that_exist(text, size, again):
    found = targets.parse(text)
    assert (found.size, str(found)) == (size, again)
    assert targets.parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("v5", "unknown target 'v5'; did you mean v5"),
        ("h10", "did you mean h100"),
        ("abacus:3", "choose from v4, v5e, v5p, v6e, a100, h100, h200"),
        ("v5e:3x5", "v5e has no topology '3x5'; choose from 1x1, 2x2, 2x4"),
        ("v5e:8", "v5e has no topology '8'; choose from 1x1"),
        ("v6e:2x-4", "v6e has no topology '2x-4'"),
        ("v4:4x2x2", "v4 has no topology '4x2x2'; three increasing sides"),
        ("h100:9", "h100 has no topology '9'; give a number up to 8, or a multiple"),
        ("h100:0", "h100 has no topology '0'"),
    ],
)
def test_targets_that_do_not_exist(text, sentence):
    with pytest.raises(UserError, match=sentence.replace("(", r"\(")):
        targets.parse(text)


def test_compiler_versions_match_the_installed_jax():
    (libtpu,) = compilers.requirements("tpu")
    assert libtpu.startswith("libtpu==")
    jaxlib = importlib.metadata.version("jaxlib")
    assert compilers.requirements("gpu") == [
        f"jax-cuda12-plugin=={jaxlib}",
        f"jax-cuda12-pjrt=={jaxlib}",
    ]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """``installed(version)`` makes a compilers' folder with only that libtpu."""
    monkeypatch.setenv(compilers.FOLDER, str(tmp_path))

    def put(version):
        folder = tmp_path / f"libtpu-{version}.dist-info"
        folder.mkdir()
        text = f"Metadata-Version: 2.1\nName: libtpu\nVersion: {version}\n"
        (folder / "METADATA").write_text(text)

    return put


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed here"
)
def test_a_missing_compiler_is_named_with_the_command(installed, tmp_path):
    with pytest.raises(UserError) as error:
        compilers.ask(V5E, {}, "json", 1.0)
    text = str(error.value)
    assert "compiling for a TPU needs libtpu, which is not installed" in text
    assert f"--target {tmp_path} 'libtpu==" in text


def test_a_compiler_of_another_version_is_named(installed):
    installed("0.0.1")
    with pytest.raises(
        UserError, match=r"libtpu 0\.0\.1 does not fit jax .*needs libtpu"
    ):
        compilers.versions("tpu")


def fitting():
    (asked,) = map(Requirement, compilers.requirements("tpu"))
    return str(next(iter(asked.specifier)).version).replace("*", "1")


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        ("os.abort()", "the v5e compiler crashed (SIGABRT)"),
        ("time.sleep(60)", "the v5e compiler was stopped after"),
        ("raise MemoryError('too large')", "the v5e compiler failed: MemoryError"),
        ("sys.exit(0)", "the v5e compiler printed no answer"),
    ],
)
def test_a_failing_compiler_loses_only_its_program(
    installed, tmp_path, monkeypatch, second, sentence
):
    installed(fitting())
    (tmp_path / "fake.py").write_text(FAKE.format(begin="", second=second))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    seconds = 2.0 if "sleep" in second else 60.0
    first, failed, last = compilers.ask(V5E, {"a": 1}, "fake", seconds)
    assert first == {"program": "first", "said": "first"}
    assert failed["program"] == "second"
    assert failed["error"].startswith(sentence)
    assert last == {"program": "third", "said": "third"}


@pytest.mark.parametrize(
    ("begin", "sentence"),
    [
        ("compilers.answer({'error': 'no such slice'}); sys.exit()", "no such slice"),
        ("os.kill(os.getpid(), 9)", "the v5e compiler crashed"),
        ("import no_such_module", "the v5e compiler failed: ModuleNotFoundError"),
    ],
)
def test_a_compiler_that_never_starts_is_a_sentence(
    installed, tmp_path, monkeypatch, begin, sentence
):
    installed(fitting())
    (tmp_path / "fake.py").write_text(FAKE.format(begin=begin, second="pass"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match=sentence):
        compilers.ask(V5E, {}, "fake", 60.0)


def test_ordinary_programs_do_not_see_the_compilers():
    assert str(compilers.folder()) not in sys.path


def test_the_help_lists_every_chip():
    assert tuple(targets.CHIPS) == names.CHIPS
