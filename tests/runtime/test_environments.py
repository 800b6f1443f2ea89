"""The command line on machines and terminals as people have them."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import filelock
import pytest
from command_line import TINY_SELECTION as TINY

from audiodd_jax.commands import main
from audiodd_jax.coreset import audio_folder
from audiodd_jax.data import datasets
from audiodd_jax.errors import UserError
from audiodd_jax.report import distilled, figures, tables
from audiodd_jax.report.tables import Table
from audiodd_jax.runtime import machine
from audiodd_jax.sweep import local, plan, run_process


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
        "JAX_DISABLE_JIT": "1",
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


def test_many_classes_are_drawn_in_part(tmp_path, monkeypatch):
    import numpy as np

    drawn, blank = [], figures.blank
    monkeypatch.setattr(
        figures, "blank", lambda *size: drawn.append(blank(*size)) or drawn[-1]
    )
    names = tuple(f"class {i}" for i in range(300))
    images = np.zeros((300, 8, 8)) + np.arange(8)
    figures.coreset_grid(images, images, names, 1.0, "many", tmp_path / "a.png")
    figures.confusion(np.eye(300, dtype=int), names, "many", tmp_path / "b.png")
    grid, confusion = drawn
    # The grid shows the first classes, and its title gives their number.
    shown = [axes.get_ylabel() for axes in grid.axes if "class" in axes.get_ylabel()]
    assert shown == list(names[: figures.MAX_ROWS])
    assert f"many, {figures.MAX_ROWS} of 300 classes" in grid.get_suptitle()
    # The matrix has all classes, but no room for their names and shares.
    matrix = confusion.axes[0]
    assert matrix.images[0].get_array().shape == (300, 300)
    assert len(matrix.texts) == 0
    labels = [label.get_text() for label in matrix.get_yticklabels()]
    assert not set(labels) & set(names)


def test_folders_of_classes_are_unique_and_bounded():
    names = ("rock pop", "rock/pop", "Rock Pop", "x" * 400, "../x", ".hidden", "/")
    folders = audio_folder.folders_of(names)
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


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("--data_dir=/home/me/secret/sounds", "--data_dir=sounds"),
        ("/home/me/secret/sounds", "sounds"),
        ("--data_dir=../secret/sounds", "--data_dir=sounds"),
        ("--data_dir=~/secret/sounds", "--data_dir=sounds"),
        ("--config.coreset.init=/secret/a=b/c.npz", "--config.coreset.init=c.npz"),
        ("--config.rfad.loss=platt", "--config.rfad.loss=platt"),
        ("--dataset", "--dataset"),
    ],
)
def test_cards_name_no_folders(argument, shown):
    assert distilled._without_folders(argument) == shown


def test_a_run_that_was_hung_up_is_cut_and_not_failed(tmp_path):
    planned = plan.Planned("a", "distill", ())
    attempt = object.__new__(run_process.Attempt)
    attempt.plan, attempt._workdir = planned, tmp_path
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        assert attempt._ended(128 + getattr(signal, name))[0] == "cut"


@pytest.fixture
def examined(tmp_path):
    """``examined(backend)``: the doctor's findings about the machine, by name."""
    return lambda backend="cpu": dict(machine.examine(tmp_path / "cache", backend))


def test_the_doctor_of_a_sound_machine(examined, monkeypatch, tmp_path):
    for name in ("CUDA_VISIBLE_DEVICES", "JAX_ENABLE_X64", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine, "_has_network", lambda: True)
    found = examined()
    assert set(found) <= {"memory", "cache", "output"}
    assert "no locks" not in found["cache"]
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_names_what_a_run_would_meet(examined, monkeypatch):
    monkeypatch.setattr(machine.memory, "host_memory", lambda: 1 << 30)
    monkeypatch.setattr(machine, "is_writable", lambda _: False)
    monkeypatch.setattr(machine.psutil, "net_if_stats", dict)
    monkeypatch.setenv("JAX_DISABLE_JIT", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    found = examined("gpu")
    assert "limited to 1.0 GiB; little" in found["memory"]
    assert "set AUDIODD_CACHE, or pass --cache_dir" in found["cache"]
    assert "pass --workdir" in found["current folder"]
    assert "pass --data_dir" in found["network"]
    assert "one of several" in found["several processes"]
    assert "JAX_DISABLE_JIT: ignored" in found["JAX's settings"]
    assert "CUDA_VISIBLE_DEVICES=2,3" in found["devices' limits"]
    assert "set XLA_FLAGS=--xla_gpu_deterministic_ops=true" in found["same bits"]


def test_the_doctor_names_a_file_system_without_locks(examined, monkeypatch):
    def no_locks(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    assert "start one process at a time" in examined()["cache"]
