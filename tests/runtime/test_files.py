"""Atomic files, JSON without NaN, archives that claim too much, and locks."""

import errno
import io
import json
import os
import zipfile

import filelock
import numpy as np
import pytest

from audiodd_jax.coreset.file import load_coreset
from audiodd_jax.errors import UserError
from audiodd_jax.runtime import files


def hostile(path, shape, descr="<f4"):
    """Writes an ``.npz`` whose header claims a shape."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path, "w") as file:
        for name in ("images", "labels", "class_names", "metadata"):
            file.writestr(f"{name}.npy", header.getvalue() + b"\0" * 16)
    return path


@pytest.mark.parametrize("shape", [(1 << 48,), (1 << 62, 4), (2**31, 2**31), (5,)])
def test_shapes_larger_than_the_file_are_refused(tmp_path, shape):
    path = hostile(tmp_path / "x.npz", shape)
    with pytest.raises(ValueError, match=r"the size of .* does not match its shape"):
        files.load_npz(path)
    with pytest.raises(UserError, match="is not a coreset"):
        load_coreset(path)


def test_json_has_no_nan():
    value = {"a": [1.0, float("nan")], "b": float("inf")}
    assert json.loads(files.to_json(value)) == {"a": [1.0, None], "b": None}


def test_names_that_are_not_utf_8_are_escaped_in_texts(tmp_path):
    files.write_atomically(tmp_path / "card.md", os.fsdecode(b"# latin \xe9\n"))
    assert (tmp_path / "card.md").read_text() == "# latin \\udce9\n"


def test_new_files_respect_the_umask(tmp_path):
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


def test_failed_atomic_writes_leave_no_scratch_files(tmp_path):
    files.write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "a.json", {"x": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "x" * 238])
def test_names_as_long_as_the_file_system_allows(tmp_path, name):
    files.write_json(tmp_path / name, {"x": 1})
    assert files.read_json(tmp_path / name) == {"x": 1}
    (tmp_path / name).unlink()
    with files.atomic_folder(tmp_path / name) as scratch:
        (tmp_path / "other.part-1").mkdir()
        left = scratch.with_name(scratch.name[:-12] + "0" * 12)
        left.mkdir()
    with pytest.raises(KeyError), files.atomic_folder(tmp_path / name):
        raise KeyError
    assert {p.name for p in tmp_path.iterdir()} == {name, "other.part-1"}


def test_a_file_system_without_locks(tmp_path, monkeypatch, caplog):
    def no_locks(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    with files.exclusive(tmp_path / "lock", "testing"):
        pass
    assert files.hold(tmp_path / "lock") is not None
    assert "has no locks" in caplog.text
