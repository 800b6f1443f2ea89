"""Downloads from a server on the loopback address."""

import hashlib

import pytest

from audiodd_jax.data import download
from audiodd_jax.errors import UserError

BODY = bytes(range(256)) * 4000
SHA256 = "sha256:" + hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(file_server):
    return file_server(BODY)


def test_fetch(server, tmp_path):
    target = tmp_path / "new" / "archive.bin"
    assert download.fetch(server.url, target, SHA256).read_bytes() == BODY
    assert [p.name for p in target.parent.iterdir()] == ["archive.bin"]
    download.fetch(server.url, target)
    assert len(server.requests) == 1


def test_a_lost_connection_is_resumed(server, tmp_path):
    server.cuts = [1000, 300_000, 17]
    target = tmp_path / "archive.bin"
    download.fetch(server.url, target, SHA256)
    assert target.read_bytes() == BODY
    starts = [0, 1000, 301_000, 301_017]
    assert server.requests == ["", *(f"bytes={start}-" for start in starts[1:])]


def test_the_same_command_resumes_a_download(server, tmp_path):
    server.cuts = [400_000] + [0] * 10
    target = tmp_path / "archive.bin"
    with pytest.raises(UserError, match="the same command resumes it"):
        download.fetch(server.url, target, SHA256)
    assert not target.exists()
    server.cuts = []
    server.requests.clear()
    download.fetch(server.url, target, SHA256)
    assert target.read_bytes() == BODY
    assert server.requests == ["bytes=400000-"]


def test_without_ranges_the_whole_file_is_sent_again(server, tmp_path):
    server.has_ranges = False
    target = tmp_path / "archive.bin"
    target.with_name("archive.bin.part").write_bytes(b"something else")
    assert download.fetch(server.url, target, SHA256).read_bytes() == BODY


def test_a_wrong_checksum_is_named_and_leaves_nothing(server, tmp_path):
    target = tmp_path / "archive.bin"
    wrong = "md5:" + 32 * "0"
    with pytest.raises(
        UserError,
        match=r"a file that differs from the published one: its md5 is \w+, not 0",
    ):
        download.fetch(server.url, target, wrong)
    assert not list(tmp_path.iterdir())


def test_leftovers_longer_than_the_file_are_dropped(server, tmp_path):
    target = tmp_path / "archive.bin"
    target.with_name("archive.bin.part").write_bytes(BODY + b"more")
    assert download.fetch(server.url, target).read_bytes() == BODY


def test_refusals_are_named(server, tmp_path):
    server.status = 404
    with pytest.raises(UserError, match="answered 404 Not Found"):
        download.fetch(server.url, tmp_path / "x")
    with pytest.raises(UserError, match="could not be downloaded"):
        download.fetch("http://127.0.0.1:1/x", tmp_path / "x")
    assert not (tmp_path / "x").exists()
