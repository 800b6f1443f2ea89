"""The wheel and the source archive are complete and work without the checkout."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from coresets import labelled

import audiodd_jax

REPOSITORY = Path(__file__).parents[2]
BUILD = """
import sys
import hatchling.build
hatchling.build.build_wheel(sys.argv[1])
hatchling.build.build_sdist(sys.argv[1])
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    pytest.importorskip("hatchling", reason="needs hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-c", BUILD, str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return folder


def test_the_wheel_has_every_file_of_the_package(built):
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    kinds = ("*.py", "*.md", "*.html", "*.css", "*.js", "*.npz", "py.typed")
    package = REPOSITORY / "audiodd_jax"
    wanted = {p for kind in kinds for p in package.rglob(kind)}
    assert {str(p.relative_to(REPOSITORY)) for p in wanted} <= names
    assert not any("tests/" in name or "runs/" in name for name in names)
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        inside = {Path(*Path(name).parts[1:]) for name in archive.getnames()}
    tracked = ("README.md", "LICENSE", "launch/test.sh", "tests/conftest.py")
    assert {Path(name) for name in tracked} <= inside


def test_an_unpacked_wheel_exports(built, tmp_path):
    """Templates and scripts are found without a checkout."""
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    labelled().save(tmp_path / "coreset.npz")
    command = [sys.executable, "-m", "audiodd_jax", "export", "coreset.npz"]
    done = subprocess.run(
        [*command, "--format=pytorch", "--out=out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "train.py").exists()
    assert (tmp_path / "out" / "README.md").read_text().startswith("# Coreset")


def test_the_metadata_is_complete(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("/METADATA"))
        text = archive.read(name).decode()
    for line in ("License-Expression: Apache-2.0", "Classifier: Typing :: Typed"):
        assert line in text
    assert re.search(r"^Requires-Python: >=3\.11$", text, re.MULTILINE)
    assert "Description-Content-Type: text/markdown" in text
    assert "please cite" in text
    assert "@inproceedings{loo2022rfad" in text
    assert "Project-URL: Paper of the method, https://arxiv.org/abs/2210.12067" in text


def test_the_changelog_begins_with_this_version():
    """A release always has its entry."""
    text = (REPOSITORY / "audiodd_jax/CHANGES.md").read_text()
    versions = re.findall(r"^## (\S+)$", text, re.MULTILINE)
    assert versions[0] == audiodd_jax.__version__
    assert versions == sorted(versions, reverse=True)


def test_an_index_accepts_the_archives(built):
    """The description renders, and the metadata is valid."""
    pytest.importorskip("twine", reason="needs twine")
    files = map(str, [*built.glob("*.whl"), *built.glob("*.tar.gz")])
    command = [sys.executable, "-m", "twine", "check", "--strict", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2
