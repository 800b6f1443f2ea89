"""Runs that are resumed by another version, elsewhere, or after damage."""

import errno
import json
import shutil

import filelock
import numpy as np
import pytest
from test_checkpoints import state

from audiodd_jax.artifacts.coreset_file import load_coreset
from audiodd_jax.config import Config, fields
from audiodd_jax.config.names import DISTILLATION
from audiodd_jax.runtime import files, locks, memory
from audiodd_jax.runtime.checkpoints import Checkpoints
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.runtime.run_directory import RunDirectory

OPTIONS = fields.run_options(DISTILLATION)


def record(**changes):
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return fields.record(fields.replace(Config(), dotted), DISTILLATION)


def begun(folder, config):
    with RunDirectory(folder, config, **OPTIONS) as run:
        run.use_data("digest")
        run.start_from(0)
    return folder


def test_a_run_of_a_version_without_a_setting_takes_its_default(tmp_path):
    old = record()
    del old["coreset"]["factor"], old["seed"]
    begun(tmp_path / "run", old)
    with RunDirectory(tmp_path / "run", record(), **OPTIONS):
        pass
    other = pytest.raises(UserError, match="factor is 1 there and 2 here")
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
    with pytest.raises(ValueError, match="has not the size of its shape"):
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
