"""Runs in object stores: leases, commit points, and what another machine finds."""

import contextlib
import json
import os
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest
import stores

from audiodd_jax.config import user_paths
from audiodd_jax.data import sessions
from audiodd_jax.data.answers import Journal
from audiodd_jax.errors import InUseError, UserError
from audiodd_jax.runtime import files, lazy_files, mirror, object_store
from audiodd_jax.runtime import lease as lease_lib
from audiodd_jax.runtime.checkpoints import Checkpoints
from audiodd_jax.runtime.object_store import Bucket
from audiodd_jax.runtime.run_directory import RunDirectory

CONFIG = {"seed": 0}
STATE = {"x": jnp.arange(3.0)}


@pytest.fixture(scope="module", params=stores.ONE)
def served(request):
    with stores.serving(request.param) as store:
        yield store


@pytest.fixture
def store(served, monkeypatch):
    stores.reset(served, monkeypatch)
    monkeypatch.setattr(object_store, "BACKOFF", 0.01)
    monkeypatch.setattr(lease_lib, "_TERM", 0.9)
    return served


@pytest.fixture
def machine(store, tmp_path, monkeypatch):
    """``machine("a", "run")``: the folder of a run in the store, on a machine."""

    def on(name, run):
        monkeypatch.setenv("AUDIODD_MIRRORS", str(tmp_path / name))
        return user_paths.local(f"{store.url}/{os.path.basename(tmp_path)}/{run}")

    return on


def opened(folder):
    return RunDirectory(folder, CONFIG, tracked_by={})


def advance(run, checkpoints, steps):
    for step in steps:
        run.log({"step": step})
        checkpoints.save(step, {"x": STATE["x"] + step})


def die(run):
    """Ends a process's work without giving anything back."""
    lease = run._lock
    with lease._mutex:  # no renewal is under way
        lease._is_over.set()
        lease._version = None
    lease_lib._leases.pop(lease.folder)
    lease._lock.release()


def resumed(folder):
    """Returns the rows and the checkpoint of a run, as a resuming command sees them."""
    with opened(folder) as run:
        found = Checkpoints(folder / "checkpoints").restore_latest(STATE)
        step, state = found or (-1, STATE)
        np.testing.assert_array_equal(state["x"], STATE["x"] + max(step, 0))
        run.start_from(step)
        return [row["step"] for row in run.history()], step


def test_urls_are_folders_of_the_mirror(monkeypatch, tmp_path):
    monkeypatch.setenv("AUDIODD_MIRRORS", str(tmp_path))
    for url in ("s3://b/runs/a", "gs://b/x@20%", "s3://b/one.npz"):
        path = user_paths.local(url)
        assert mirror.url_of(path) == url
        assert user_paths.with_urls(f"no {path}: nothing") == f"no {url}: nothing"
    assert user_paths.local(tmp_path) == tmp_path
    with pytest.raises(UserError, match="s3://b is a bucket: add a folder"):
        user_paths.local("s3://b")
    assert mirror.url_of(tmp_path / "run") is None


def test_another_machine_finds_a_finished_run(machine, store):
    here = machine("a", "run")
    with opened(here) as run:
        run.start_from(-1)
        advance(run, Checkpoints(here / "checkpoints"), (0, 1, 2, 3))
        run.finish({"test_accuracy": 0.5})
    there = machine("b", "run")
    with opened(there) as run:
        assert run.result() == {"test_accuracy": 0.5}
        assert len(run.history()) == 4
    names = {path.name for path in (there / "checkpoints").iterdir()}
    assert names == {"2", "3"}  # those that are kept
    # Nothing has changed since.
    store.log.clear()
    with opened(there) as run:
        assert run.result()
    assert [(method, path.split("?")[0][-5:]) for method, path, *_ in store.log][
        3:
    ] in (
        [("DELETE", ".lock")],
        [("DELETE", "Flock")],
    )


def test_a_run_resumes_from_its_last_commit(machine):
    """On the same machine at once, on another one when the lease is void."""
    here = machine("a", "killed")
    run = opened(here).__enter__()
    run.start_from(-1)
    advance(run, Checkpoints(here / "checkpoints"), (0, 1))
    run.log({"step": 2})  # not published
    die(run)
    assert resumed(here) == ([0, 1], 1)
    assert resumed(machine("b", "killed")) == ([0, 1], 1)


def test_another_machine_waits_for_a_dead_one(machine):
    here = machine("a", "dead")
    run = opened(here).__enter__()
    run.start_from(-1)
    advance(run, Checkpoints(here / "checkpoints"), (0,))
    die(run)
    assert resumed(machine("b", "dead")) == ([0], 0)


@stores.on_both
def test_a_second_writer_is_refused(machine, monkeypatch):
    monkeypatch.setattr(lease_lib, "_TERM", 4.5)  # renewed three times as often
    with opened(machine("a", "twice")) as run:
        run.start_from(-1)
        with (
            pytest.raises(InUseError, match=r"another process is writing .*twice"),
            opened(machine("b", "twice")),
        ):
            pass
        run.log({"step": 1})
        run.finish({"a": 1})


@stores.on_both
def test_a_process_that_lost_its_lease_publishes_nothing(machine):
    """Such as one on a machine that was suspended."""
    here = machine("a", "lost")
    first = opened(here).__enter__()
    first.start_from(-1)
    with first._lock._mutex:  # no renewal is under way
        first._lock._is_over.set()
    there = machine("b", "lost")
    with opened(there) as second:
        second.start_from(-1)
        second.log({"step": 1})
        with pytest.raises(InUseError, match="has taken over"):
            first.finish({"by": "first"})
        second.finish({"by": "second"})
    die(first)
    with opened(machine("c", "lost")) as run:
        assert run.result() == {"by": "second"}


def test_every_beginning_of_a_commit_can_be_resumed(machine, monkeypatch):
    """A machine is lost after any of the requests that publish two checkpoints."""
    write, left = Bucket.write, []
    monkeypatch.setattr(lease_lib.Lease, "_outlive", lambda _, there: there.version)

    def limited(bucket, key, data, version=None):
        if not left:
            is_main = threading.current_thread() is threading.main_thread()
            raise KeyboardInterrupt if is_main else UserError("lost")  # of a renewal
        left.pop()
        return write(bucket, key, data, version)

    seen = set()
    for count in range(1, 14):
        here = machine(f"a{count}", f"cut{count}")
        run = opened(here)
        left[:] = [0] * count
        monkeypatch.setattr(Bucket, "write", limited)
        try:
            run.__enter__()
            run.start_from(-1)
            advance(run, Checkpoints(here / "checkpoints"), (0, 1, 2))
        except KeyboardInterrupt:
            pass
        monkeypatch.setattr(Bucket, "write", write)
        die(run)
        rows, step = resumed(machine(f"b{count}", f"cut{count}"))
        assert rows == list(range(step + 1))
        seen.add(step)
    assert seen >= {-1, 0, 1}


@pytest.mark.parametrize("fault", ["cut", 503, 429])
def test_nothing_incomplete_is_read(machine, store, fault):
    here = machine("a", f"cut-{fault}")
    with opened(here) as run:
        run.start_from(-1)
        advance(run, Checkpoints(here / "checkpoints"), (0,))
    store.only, store.faults = "GET .*zip", [fault] * 3
    assert resumed(machine("b", f"cut-{fault}")) == ([0], 0)
    assert store.faults == []
    store.only, store.faults = "GET .*zip", [fault] * object_store.TRIES
    with pytest.raises(UserError, match="cannot be reached"):
        resumed(machine("c", f"cut-{fault}"))


def test_a_store_that_fails_during_a_commit(machine, store):
    here = machine("a", "failing")
    with opened(here) as run:
        run.start_from(-1)
        checkpoints = Checkpoints(here / "checkpoints")
        advance(run, checkpoints, (0,))
        store.only = r"(PUT|POST) .*1\.zip"
        store.faults = [500] * object_store.TRIES
        with pytest.raises(UserError, match="continues once the store answers"):
            advance(run, checkpoints, (1,))
    assert resumed(machine("b", "failing"))[1] == 0


def test_a_folder_that_holds_something_else_is_refused(machine, store):
    scheme, name = store.url.split("://")
    here = machine("a", "thesis")
    key = mirror.url_of(here).removeprefix(f"{store.url}/")
    Bucket(scheme, name).write(f"{key}/thesis.txt", b"precious")
    with pytest.raises(UserError, match="holds no run"), opened(here):
        pass
    assert list(Bucket(scheme, name).listed(key)) == [f"{key}/thesis.txt"]


def test_a_folder_appears_all_at_once(machine):
    """Such as an entry of the features in a shared cache."""
    here = machine("a", "entry")
    here.mkdir(parents=True)
    (here / "features.npy").write_bytes(b"123")
    mirror.publish(here)
    there = machine("b", "entry")
    mirror.fetch(there, whole="meta.json")
    assert not there.exists()
    files.write_json(here / "meta.json", {})
    mirror.publish(here)
    mirror.fetch(there, whole="meta.json")
    assert json.loads((there / "meta.json").read_text()) == {}
    assert (there / "features.npy").read_bytes() == b"123"


def test_readers_leave_a_folder_alone_that_this_machine_writes(machine):
    here = machine("a", "busy/run")
    with opened(here) as run:
        run.start_from(-1)
        run.log({"step": 1})  # not published yet
        mirror.fetch(here.parent)
        assert len(run.history()) == 1
    other = machine("b", "busy")
    mirror.fetch(other)
    assert (other / "run" / "metrics.jsonl").read_text() == ""


def typed(folder, *clips):
    """Answers as ``audiodd label`` keeps them, in a folder that this process leases."""
    journal = Journal(folder / "answers.jsonl")
    for clip in clips:
        journal.append({"clip": clip, "labels": ["dog"]})
    return list(journal.labelled)


def test_answers_are_published_in_the_background(machine, store, monkeypatch):
    monkeypatch.setattr(lease_lib, "_SOON", 0.05)
    here = machine("a", "answers")
    key = mirror.url_of(here).removeprefix(f"{store.url}/") + "/answers.jsonl"
    bucket = Bucket(*store.url.split("://"))

    def published(count):
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with contextlib.suppress(FileNotFoundError):
                if bucket.read(key).data.count(b"\n") == count:
                    return True
            time.sleep(0.02)
        return False

    with opened(here) as run:
        run.start_from(-1)
        typed(here, "a", "b")
        assert published(2)
        store.only = "PUT .*jsonl|POST .*jsonl"
        store.faults = [503] * object_store.TRIES
        typed(here, "c")
        assert published(3)
        assert store.faults == []


def test_answers_of_a_killed_process_are_kept(machine, monkeypatch):
    """Also those that it could not publish, and if others have answered since."""
    monkeypatch.setattr(lease_lib, "_SOON", 60.0)
    here = machine("a", "typed")
    run = opened(here).__enter__()
    run.start_from(-1)
    typed(here, "a")
    lease_lib.commit(here)
    typed(here, "b")
    (here / "to_label.csv").write_text("filled in here")
    die(run)
    with opened(here) as run:
        assert typed(here) == ["a", "b"]
        assert (here / "to_label.csv").read_text() == "filled in here"
        lease_lib.commit(here)
        typed(here, "c")
    there = machine("b", "typed")
    with opened(there) as run:
        assert typed(there, "d") == ["a", "b", "d"]
        lease_lib.commit(there)
    # A reader of the first machine does not lose its answers either.
    mirror.fetch(here)
    machine("a", "typed")
    with opened(here) as run:
        journal = Journal(here / "answers.jsonl")
        sessions.add_unpublished(journal, here)
        assert typed(here) == ["a", "b", "d", "c"]
        lease_lib.commit(here)
    assert not list(here.glob(f"{mirror.UNPUBLISHED}*"))
    with opened(machine("c", "typed")) as run:
        assert typed(run.path) == ["a", "b", "d", "c"]


def test_recordings_are_downloaded_when_read_and_make_room(machine, monkeypatch):
    here = machine("a", "sounds")
    here.mkdir(parents=True)
    contents = {"a.wav": b"1", "b.wav": b"22", "list.csv": b"333"}
    for name, content in contents.items():
        (here / name).write_bytes(content)
    mirror.publish(here)
    monkeypatch.setattr(lazy_files, "_MOST", 0.0)
    monkeypatch.setattr(lazy_files, "_READING", 0.0)
    there = machine("b", "sounds")
    mirror.fetch(there, lazy=(".wav",))
    assert (there / "list.csv").read_bytes() == b"333"
    states = [(there / name).stat() for name in ("a.wav", "b.wav")]
    assert [status.st_size for status in states] == [1, 2]
    for name in ("a.wav", "b.wav", "a.wav"):
        mirror.read(there / name)
        assert (there / name).read_bytes() == contents[name]
    is_here = [
        not lazy_files.is_placeholder((there / name).stat())
        for name in ("a.wav", "b.wav")
    ]
    assert is_here == [True, False]
    # Their digests do not depend on whether they have been downloaded.
    for name, status in zip(("a.wav", "b.wav"), states, strict=True):
        assert (there / name).stat().st_mtime_ns == status.st_mtime_ns
