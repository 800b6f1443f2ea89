import os

import pytest

from audiodd_jax.data import recordings


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    for name in ("a/x.wav", "a/y.wav", "b/c/z.wav"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"sound")
    return root


def _touch(root):
    status = (root / "a" / "x.wav").stat()
    os.utime(root / "a" / "x.wav", ns=(status.st_atime_ns, status.st_mtime_ns + 1))


@pytest.mark.parametrize(
    "change",
    [
        _touch,
        lambda root: (root / "b" / "c" / "z.wav").unlink(),
        lambda root: (root / "b" / "new.wav").write_bytes(b""),
        lambda root: (root / "a" / "x.wav").rename(root / "a" / "w.wav"),
        lambda root: (root / "a").rename(root / "d"),
    ],
)
def test_every_change_of_a_tree_changes_its_fingerprint(tree, change):
    before = recordings.fingerprint_tree(tree)
    assert recordings.fingerprint_tree(tree) == before
    change(tree)
    assert recordings.fingerprint_tree(tree) != before


def test_a_link_to_a_folder_above_ends(tree):
    before = recordings.fingerprint_tree(tree)
    (tree / "b" / "above").symlink_to(tree)
    assert recordings.fingerprint_tree(tree) == before
    (tree / ".hidden").write_text("left out")
    assert recordings.fingerprint_tree(tree) == before


def test_a_fingerprint_of_files_covers_only_those_files(tree):
    files = [tree / "a" / "x.wav"]
    before = recordings.fingerprint_files(files, tree)
    (tree / "a" / "y.wav").unlink()
    assert recordings.fingerprint_files(files, tree) == before
    _touch(tree)
    assert recordings.fingerprint_files(files, tree) != before


def test_a_folder_whose_name_is_not_utf_8_has_a_fingerprint(tmp_path):
    folder = tmp_path / os.fsdecode(b"latin\xe9")
    folder.mkdir()
    file = folder / "x.wav"
    file.write_bytes(b"x")
    for of in (
        lambda: recordings.fingerprint_files([file], folder),
        lambda: recordings.fingerprint_tree(folder),
    ):
        file.write_bytes(b"x")
        before = of()
        file.write_bytes(b"longer")
        assert of() != before
