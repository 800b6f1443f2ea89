"""The command line on machines and terminals as people have them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from audiodd_jax.cli import main
from audiodd_jax.data import datasets
from audiodd_jax.report import figures, gallery, tables
from audiodd_jax.report.tables import Table
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.sweep import local, plan

TINY = [
    *("--dataset=tones", "--method=random", "--samples_per_class=1"),
    *("--config.features.n_mels=16", "--config.features.frames=16"),
    *("--config.network.width=4", "--config.network.depth=2"),
    *("--config.evaluation.networks=1", "--config.evaluation.seeds=2"),
]


def audiodd(*arguments, **environment):
    """A process of the command line, with variables set or (None) removed."""
    variables = {**os.environ, "JAX_PLATFORMS": "cpu"} | environment
    return subprocess.run(
        [sys.executable, "-m", "audiodd_jax", *map(str, arguments)],
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
    )


@pytest.mark.slow
def test_a_terminal_that_knows_ascii_alone(tmp_path):
    done = audiodd("distill", *TINY, f"--workdir={tmp_path}", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert b"+- " in done.stdout


@pytest.mark.parametrize("platforms", ["cuda", "cpu,foo"])
@pytest.mark.slow
def test_a_platform_that_is_not_there(tmp_path, platforms):
    done = audiodd("prepare", "--dataset=tones", JAX_PLATFORMS=platforms)
    assert done.returncode == 1
    assert b"JAX cannot start on JAX_PLATFORMS" in done.stderr
    assert b"Traceback" not in done.stderr
    done = audiodd("doctor", JAX_PLATFORMS=platforms)
    assert done.returncode == 0
    assert b"JAX finds none" in done.stdout


@pytest.mark.slow
def test_settings_of_jax_in_the_environment_change_no_number(tmp_path):
    odd = {
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_ENABLE_X64": "1",
        "JAX_THREEFRY_PARTITIONABLE": "0",
    }
    for name, environment in (("plain", {}), ("odd", odd)):
        done = audiodd("distill", *TINY, f"--workdir={tmp_path / name}", **environment)
        assert done.returncode == 0, done.stderr
    contents = [(tmp_path / n / "coreset.npz").read_bytes() for n in ("plain", "odd")]
    assert contents[0] == contents[1]


@pytest.mark.slow
def test_modules_in_the_current_folder_shadow_nothing(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')\n")
    (tmp_path / "sweep.py").write_text("RUNS = [{'method': 'random'}]\n")
    monkeypatch.chdir(tmp_path)
    code = (
        f"import sys; sys.path = {sys.path!r}; from audiodd_jax.cli import run; run()"
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
def test_addresses_are_refused_before_anything_is_made(flag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"--{flag}: gs://b/x is not a local path"):
        main.main(["distill", *TINY, f"--{flag}=gs://b/x"])
    assert list(tmp_path.iterdir()) == []


def test_a_user_without_a_home(monkeypatch):
    for name in ("HOME", "AUDIODD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(UserError, match="set AUDIODD_CACHE, or pass --cache_dir"):
        datasets.cache_root()


def test_a_report_replaces_nobodys_files(tmp_path, capsys):
    main.main(["distill", *TINY, f"--workdir={tmp_path / 'run'}"])
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    for place in ("site", "run"):
        with pytest.raises(UserError, match="is not empty and holds no report"):
            main.main(["report", str(tmp_path / "run"), f"--out={tmp_path / place}"])
    assert (tmp_path / "site" / "index.html").read_text() == "mine"


def test_a_dry_run_checks_the_factor(capsys):
    arguments = ["--method=rfad", "--config.coreset.factor=3", "--dry_run"]
    with pytest.raises(UserError, match="factor=3 does not divide the 16 frames"):
        main.main(["distill", *TINY, *arguments])


@pytest.mark.parametrize("name", ["Ba$$in", "$5 - $10", "a\nb", "x" * 400, r"$\frac{"])
def test_class_names_are_drawn_as_text(name, tmp_path):
    import numpy as np

    images = np.random.default_rng(0).standard_normal((2, 8, 8)) - 20
    figures.coreset_grid(images, images, (name, "b"), 1.0, name, tmp_path / "a.png")
    figures.confusion(np.eye(2, dtype=int), (name, "b"), name, tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 1000


def test_many_classes_are_drawn_in_part(tmp_path):
    import numpy as np

    names = tuple(f"class {i}" for i in range(300))
    images = np.zeros((300, 8, 8)) + np.arange(8)
    figures.coreset_grid(images, images, names, 1.0, "many", tmp_path / "a.png")
    figures.confusion(np.eye(300, dtype=int), names, "many", tmp_path / "b.png")


def test_folders_of_classes_are_unique_and_bounded():
    names = ("rock pop", "rock/pop", "Rock Pop", "x" * 400, "../x", ".hidden", "/")
    folders = gallery._folders(names)
    assert len({folder.lower() for folder in folders}) == len(names)
    assert all(0 < len(folder.encode()) < 120 for folder in folders)
    assert not any("/" in folder or folder.startswith(".") for folder in folders)


def test_spreadsheets_compute_nothing():
    rows = [["=1+1", "-1.5"], ["@x", "+3"], ["-x", "1"]]
    text = tables.comma_separated(Table(["a", "b"], rows))
    assert text.splitlines()[1:] == ["'=1+1,-1.5", "'@x,+3", "'-x,1"]


def test_runs_get_devices_that_the_sweep_may_use(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    found = local.slots("gpu", 2, 0, 1)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in found] == ["2", "3"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("RUNS = [{'name': 'logs'}]", "a run cannot be called logs"),
        ("RUNS = [{'name': 'status.md'}]", "a run cannot be called status.md"),
        ("import sys; sys.exit(3)", "is not a sweep file: SystemExit"),
    ],
)
def test_sweep_files_that_cannot_be(tmp_path, text, words):
    (tmp_path / "s.py").write_text(text)
    with pytest.raises(UserError, match=words):
        plan.read(tmp_path / "s.py")
