"""Requests to real servers on the loopback address, which may fail."""

import io

import pytest
import stores

from audiodd_jax.errors import UserError
from audiodd_jax.runtime import object_store
from audiodd_jax.runtime.object_store import Bucket, Changed


@pytest.fixture(scope="module", params=stores.BOTH)
def served(request):
    with stores.serving(request.param) as store:
        yield store


@pytest.fixture
def store(served, monkeypatch):
    """A server without faults, and with little patience of its client."""
    stores.reset(served, monkeypatch)
    monkeypatch.setattr(object_store, "BACKOFF", 0.01)
    monkeypatch.setattr(object_store, "PATIENCE", 0.5)
    return served


@pytest.fixture
def bucket(store):
    return Bucket(*store.url.split("://"))


def test_objects_are_written_and_read_whole(bucket, monkeypatch):
    monkeypatch.setattr(object_store, "_BLOCK", 10)
    first = bucket.write("a/b c.txt", b"one")
    second = bucket.write("a/b c.txt", b"some more bytes than in one part")
    assert first != second
    content = bucket.read("a/b c.txt")
    assert content.data == b"some more bytes than in one part"
    assert content.version == second
    found = bucket.listed("a/")["a/b c.txt"]
    assert (found.size, found.version) == (32, second)
    assert abs(found.modified - content.modified) < 5
    file = io.BytesIO()
    bucket.download("a/b c.txt", found, file)
    assert file.getvalue() == content.data
    bucket.write("a/b c.txt", b"changed meanwhile")
    with pytest.raises(Changed):
        bucket.download("a/b c.txt", found, io.BytesIO())
    bucket.remove("a/b c.txt")
    bucket.remove("a/b c.txt")
    with pytest.raises(FileNotFoundError):
        bucket.read("a/b c.txt")


def test_a_second_writer_fails(bucket):
    version = bucket.write("one", b"first", "")
    with pytest.raises(Changed):
        bucket.write("one", b"second", "")
    newer = bucket.write("one", b"third", version)
    with pytest.raises(Changed):
        bucket.write("one", b"fourth", version)
    assert bucket.read("one").data == b"third"
    bucket.write("one", b"fifth", newer)


def test_more_objects_than_a_page_has(bucket, store):
    for number in range(3):
        bucket.write(f"many/{number}", b"x")
    assert len(bucket.listed("many/")) == 3
    assert store.counted()[1] == 1


@pytest.mark.parametrize("fault", [429, 500, 503, "cut", "lost", 1.0])
def test_a_request_that_fails_is_tried_again(bucket, store, fault):
    bucket.write("two", b"content")
    store.faults = [fault, fault]
    assert bucket.read("two").data == b"content"
    assert store.faults == []


@pytest.mark.parametrize("fault", [500, "lost"])
def test_a_write_whose_answer_is_lost_is_no_other_writer(bucket, store, fault):
    version = bucket.write("three", b"before")
    store.faults = [fault]
    version = bucket.write("three", b"after", version)
    assert bucket.write("three", b"last", version)


def test_a_store_that_does_not_answer_is_one_sentence(bucket, store):
    store.faults = [503] * object_store.TRIES
    with pytest.raises(UserError, match=r"/four cannot be reached \(.*; 6 attempts"):
        bucket.write("four", b"content")
    assert store.faults == []
    with pytest.raises(FileNotFoundError):
        bucket.read("four")


def test_wrong_credentials_are_named_at_once(bucket, store):
    store.faults = [403, 403]
    with pytest.raises(UserError, match="refuses access"):
        bucket.read("five")
    assert store.faults == [403]


def test_a_bucket_that_does_not_exist(store):
    scheme, _ = store.url.split("://")
    missing = Bucket(scheme, "no-such-bucket")
    for request in (lambda: missing.listed(""), lambda: missing.write("a", b"")):
        with pytest.raises(UserError, match="there is no bucket"):
            request()


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(object_store.importlib.util, "find_spec", lambda name: None)
    for scheme, extra in (("s3", "s3"), ("gs", "gcs")):
        with pytest.raises(UserError, match=rf"pip install 'audiodd_jax\[{extra}\]'"):
            Bucket(scheme, "bucket")
