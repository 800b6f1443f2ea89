import errno

import filelock

from audiodd_jax.runtime import locks


def test_a_file_system_without_locks(tmp_path, monkeypatch, caplog):
    def no_locks(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    with locks.exclusive(tmp_path / "lock", "testing"):
        pass
    assert locks.hold(tmp_path / "lock") is not None
    assert "has no locks" in caplog.text
