"""The command line on unusual terminals, platforms and home folders."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import TINY_SELECTION as TINY

from audiodd_jax.commands import main
from audiodd_jax.data import datasets
from audiodd_jax.errors import UserError


def audiodd(*arguments, **environment):
    """Runs the command line in a process, with variables set or (None) removed."""
    variables = {**os.environ, "JAX_PLATFORMS": "cpu"} | environment
    return subprocess.run(
        [sys.executable, "-m", "audiodd_jax", *map(str, arguments)],
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
    )


@pytest.mark.parametrize("platforms", ["cuda", "cpu,foo"])
@pytest.mark.slow
def test_an_unavailable_platform(tmp_path, platforms):
    done = audiodd("prepare", "--dataset=tones", JAX_PLATFORMS=platforms)
    assert done.returncode == 1
    assert b"JAX cannot start on JAX_PLATFORMS" in done.stderr
    assert b"Traceback" not in done.stderr
    done = audiodd("doctor", JAX_PLATFORMS=platforms)
    assert done.returncode == 0
    assert b"JAX finds none" in done.stdout


@pytest.mark.slow
def test_an_ascii_terminal_and_settings_of_jax_do_not_change_results(tmp_path):
    odd = {
        "PYTHONIOENCODING": "ascii",
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_DISABLE_JIT": "1",
        "JAX_ENABLE_X64": "1",
        "JAX_THREEFRY_PARTITIONABLE": "0",
    }
    for name, environment in (("plain", {}), ("odd", odd)):
        done = audiodd("distill", *TINY, f"--workdir={tmp_path / name}", **environment)
        assert done.returncode == 0, done.stderr
    assert b"+- " in done.stdout
    contents = [(tmp_path / n / "coreset.npz").read_bytes() for n in ("plain", "odd")]
    assert contents[0] == contents[1]


@pytest.mark.slow
def test_modules_in_the_current_folder_are_not_imported(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')\n")
    run = dict(flag.removeprefix("--").split("=") for flag in TINY)
    (tmp_path / "sweep.py").write_text(f"RUNS = [{run!r}]\n")
    monkeypatch.chdir(tmp_path)
    code = (
        f"import sys; sys.path = {sys.path!r}; "
        "from audiodd_jax.commands import run; run()"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "sweep", "sweep.py", "--workdir=out"],
        capture_output=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert b"shadowed" not in done.stderr + done.stdout
    assert done.returncode == 0, done.stderr


def test_a_home_folder_is_expanded(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    main.main(["distill", *TINY, "--workdir=~/run"])
    assert (tmp_path / "run" / "coreset.npz").exists()
    assert not Path("~").exists()


@pytest.mark.parametrize("flag", ["workdir", "cache_dir", "data_dir"])
def test_urls_of_other_stores_are_refused_before_any_write(flag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"--{flag}: az://b/x is not a local path, nor"):
        main.main(["distill", *TINY, f"--{flag}=az://b/x"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for scheme, extra in (("s3", "s3"), ("gs", "gcs")):
        with pytest.raises(UserError, match=rf"pip install 'audiodd_jax\[{extra}\]'"):
            main.main(["distill", *TINY, f"--{flag}={scheme}://b/x"])
    assert list(tmp_path.iterdir()) == []


def test_a_user_without_a_home(monkeypatch):
    for name in ("HOME", "AUDIODD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(UserError, match="set AUDIODD_CACHE, or pass --cache_dir"):
        datasets.cache_root()


def test_a_report_does_not_replace_other_files(tmp_path, capsys):
    main.main(["distill", *TINY, f"--workdir={tmp_path / 'run'}"])
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    for place in ("site", "run"):
        with pytest.raises(UserError, match="is not empty and holds no report"):
            main.main(["report", str(tmp_path / "run"), f"--out={tmp_path / place}"])
    assert (tmp_path / "site" / "index.html").read_text() == "mine"


def test_a_dry_run_checks_the_packing_factor(capsys):
    arguments = ["--method=rfad", "--config.coreset.factor=3", "--dry_run"]
    with pytest.raises(UserError, match="factor=3 does not divide the 16 frames"):
        main.main(["distill", *TINY, *arguments])
