"""Runs that are resumed by another version, elsewhere, or after damage."""

import errno
import json
import os
import shutil
import signal
import types

import filelock
import jax
import numpy as np
import pytest
from test_checkpoints import state

from audiodd_jax.commands import common
from audiodd_jax.config import fields, presets
from audiodd_jax.config.names import DISTILLATION
from audiodd_jax.coreset.file import load_coreset
from audiodd_jax.errors import UserError
from audiodd_jax.runtime import devices, files, locks, memory, signals
from audiodd_jax.runtime.checkpoints import Checkpoints
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.training import evaluation

OPTIONS = presets.run_options(presets.for_dataset("tones"), DISTILLATION)


def record(**changes):
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return fields.record(
        fields.replace(presets.for_dataset("tones"), dotted), DISTILLATION
    )


def begun(folder, config):
    with RunDirectory(folder, config, **OPTIONS) as run:
        run.use_data("digest")
        run.start_from(0)
    return folder


def test_a_run_of_a_version_without_a_setting_takes_its_default(tmp_path):
    """That of its dataset."""
    old = record()
    del old["coreset"]["factor"], old["seed"], old["optimizer"]
    begun(tmp_path / "run", old)
    with RunDirectory(tmp_path / "run", record(), **OPTIONS):
        pass
    other = pytest.raises(UserError, match="factor was 1 and is now 2")
    with other, RunDirectory(tmp_path / "run", record(coreset__factor=2), **OPTIONS):
        pass


def test_what_changes_no_number_may_change_and_is_recorded(tmp_path):
    begun(tmp_path / "run", record())
    moved = record(data__data_dir="/elsewhere", network__chunk=8, evaluation__seeds=9)
    with RunDirectory(tmp_path / "run", moved, **OPTIONS) as run:
        run.use_data("digest")
        run.start_from(0)
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["data"]["data_dir"] == "/elsewhere"
    assert kept["evaluation"]["seeds"] == 9


def test_other_data_is_refused(tmp_path):
    begun(tmp_path / "run", record())
    with RunDirectory(tmp_path / "run", record(), **OPTIONS) as run:
        with pytest.raises(UserError, match="or its split has changed since"):
            run.use_data("another")
        (tmp_path / "run" / "data.json").unlink()  # as an older version left it
        run.use_data("another")


def test_a_line_that_is_no_row_ends_the_history(tmp_path):
    with RunDirectory(tmp_path / "run", record(), **OPTIONS) as run:
        run.start_from(0)
        run.log({"step": 1, "loss": float("nan")})
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write('[1, 2]\n{"step": 2}\n')
        assert run.history() == [{"step": 1, "loss": None}]


@pytest.mark.parametrize("damage", ["truncated", "emptied"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, caplog, damage):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (10, 20):
        checkpoints.save(step, state(step))
    checkpoints.close()
    newest = tmp_path / "checkpoints" / "20"
    if damage == "emptied":
        shutil.rmtree(newest)
        newest.mkdir()
    else:
        for file in newest.rglob("*"):
            if file.is_file():
                file.write_bytes(b"")
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    step, found = checkpoints.restore_latest(state(0))
    assert step == 10
    np.testing.assert_array_equal(found.params["w"], state(10).params["w"])
    checkpoints.save(20, state(20))  # as the resumed run does
    assert checkpoints.restore_latest(state(0))[0] == 20
    checkpoints.close()


def test_checkpoints_that_are_all_damaged_are_named(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.restore_latest(state(0)) is None
    checkpoints.save(10, state(10))
    for file in (tmp_path / "checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(UserError, match=r"all checkpoints in .* are damaged"):
        checkpoints.restore_latest(state(0))
    checkpoints.close()


def test_a_file_system_without_locks(tmp_path, monkeypatch, caplog):
    def no_locks(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    with locks.exclusive(tmp_path / "lock", "testing"):
        pass
    assert locks.hold(tmp_path / "lock") is not None
    assert "has no locks" in caplog.text


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_nested_control_groups(tmp_path, version):
    root = tmp_path / "cgroup"
    folder = root / "memory" / "job" / "step" if version == 1 else root / "job" / "step"
    folder.mkdir(parents=True)
    name = "memory.limit_in_bytes" if version == 1 else "memory.max"
    (folder.parent / name).write_text("5000\n")
    (folder / name).write_text("max\n" if version == 2 else "7000\n")
    own = tmp_path / "own"
    own.write_text(f"{'4:memory' if version == 1 else '0:'}:/job/step\n")
    assert min(memory._cgroup_limits(root, own)) == 5000


def hostile(path, shape, descr="<f4"):
    """An ``.npz`` whose header claims a shape."""
    import io
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path, "w") as file:
        for name in ("images", "labels", "class_names", "metadata"):
            file.writestr(f"{name}.npy", header.getvalue() + b"\0" * 16)
    return path


@pytest.mark.parametrize("shape", [(1 << 48,), (1 << 62, 4), (2**31, 2**31), (5,)])
def test_shapes_that_the_file_does_not_hold(tmp_path, shape):
    path = hostile(tmp_path / "x.npz", shape)
    with pytest.raises(ValueError, match=r"the size of .* does not match its shape"):
        files.load_npz(path)
    with pytest.raises(UserError, match="is not a coreset"):
        load_coreset(path)


def test_json_has_no_nan():
    value = {"a": [1.0, float("nan")], "b": float("inf")}
    assert json.loads(files.to_json(value)) == {"a": [1.0, None], "b": None}


def test_new_files_respect_the_umask(tmp_path):
    import os

    before = os.umask(0o027)
    try:
        files.write_json(tmp_path / "a.json", {})
        files.save_npz(tmp_path / "a.npz", x=np.zeros(2))
        with files.atomic_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    for name in ("a.json", "a.npz"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_damage_that_the_storage_does_not_see(tmp_path):
    """Large arrays lie in blocks without checksums, and would be read, and be wrong."""
    large = {"x": jax.random.normal(jax.random.key(0), (100, 100))}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (10, 20):
        checkpoints.save(step, large)
    checkpoints.close()
    files = (p for p in (tmp_path / "checkpoints" / "20").rglob("*") if p.is_file())
    block = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(block.read_bytes())
    content[len(content) // 2] ^= 1
    block.write_bytes(content)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    step, found = checkpoints.restore_latest(large)
    checkpoints.close()
    assert step == 10
    np.testing.assert_array_equal(found["x"], large["x"])


def test_the_compile_cache_belongs_to_processors_and_not_to_names(tmp_path):
    texts = {
        "one": "processor : 0\ncpu MHz : 2400\nflags : fpu avx2\n",
        "faster": "processor : 0\ncpu MHz : 3900\nflags : fpu avx2\n",
        "newer": "processor : 0\ncpu MHz : 2400\nflags : fpu avx2 avx512f\n",
        "arm": "processor : 0\nFeatures : fp asimd\nSerial : 1\n",
        "other arm": "processor : 0\nFeatures : fp asimd\nSerial : 2\n",
    }
    found = {}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        found[name] = common._processor(tmp_path / name)
    assert found["one"] == found["faster"] != found["newer"]
    assert found["arm"] == found["other arm"] != found["one"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_signals_wait_until_the_state_is_saved(name):
    signum = getattr(signal, name)
    # The tests' own process may have been told to ignore it (nohup, a job of a shell).
    before = signal.signal(signum, signal.SIG_DFL)
    try:
        with signals.deferred_signals() as stop_signal:
            os.kill(os.getpid(), signum)
            assert stop_signal() == signum
    finally:
        signal.signal(signum, before)


def test_a_hangup_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with signals.deferred_signals() as stop_signal:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop_signal()
        assert signal.SIGHUP not in signals.heeded()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_mesh_follows_the_torus_of_a_tpu(monkeypatch):
    # Without the checks of types: these are no devices of JAX.
    arranged = getattr(devices._arranged, "__wrapped__", devices._arranged)
    chips = [types.SimpleNamespace(platform="tpu", id=i) for i in range(4)]
    asked = []

    def ring(shape, devices):
        asked.append(shape)
        return np.array([devices[i] for i in (0, 1, 3, 2)]).reshape(shape)

    monkeypatch.setattr(devices.mesh_utils, "create_device_mesh", ring)
    placed = arranged(chips, devices.Grid(2, 2))
    assert [[chip.id for chip in row] for row in placed] == [[0, 1], [3, 2]]
    assert asked == [(2, 2)]

    def unknown(shape, devices):
        raise NotImplementedError("a shape that the torus does not have")

    monkeypatch.setattr(devices.mesh_utils, "create_device_mesh", unknown)
    placed = arranged(chips, devices.Grid(4, 1))
    assert [chip.id for chip in placed[:, 0]] == [0, 1, 2, 3]


def test_kernels_that_no_memory_holds(monkeypatch):
    monkeypatch.setattr(evaluation, "memory_of", lambda _: 16 << 30)
    evaluation._check_memory(5_000, 11_005)
    with pytest.raises(UserError, match=r"takes 123 GB, .* such as --against=10%"):
        evaluation._check_memory(84_843, 11_005)
