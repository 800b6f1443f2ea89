"""Downloads from a server on the loopback address, and hostile archives."""

import http.server
import io
import tarfile
import threading

import pytest

from audiodd_jax.data import download
from audiodd_jax.runtime.errors import UserError

BODY = bytes(range(256)) * 4000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves BODY with ranges; ``/cut`` breaks off in the middle of a reply."""

    requests: list[str]

    def do_GET(self):
        span = self.headers.get("Range", "")
        self.server.requests.append(span)
        if self.path == "/missing":
            return self.send_error(404, "Not Found")
        start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        if start > len(BODY):
            return self.send_error(416, "Range Not Satisfiable")
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(len(BODY) - start))
        self.end_headers()
        end = len(BODY) // 2 if self.path == "/cut" and not span else len(BODY)
        self.wfile.write(BODY[start:end])
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.shutdown()


def test_fetch(server, tmp_path):
    target = tmp_path / "new" / "archive.bin"
    assert download.fetch(f"{server.url}/whole", target).read_bytes() == BODY
    assert [p.name for p in target.parent.iterdir()] == ["archive.bin"]
    download.fetch(f"{server.url}/whole", target)
    assert len(server.requests) == 1


def test_a_cut_download_continues(server, tmp_path):
    target = tmp_path / "archive.bin"
    with pytest.raises(UserError, match="the same command continues it"):
        download.fetch(f"{server.url}/cut", target)
    assert not target.exists()
    download.fetch(f"{server.url}/cut", target)
    assert target.read_bytes() == BODY
    assert server.requests == ["", f"bytes={len(BODY) // 2}-"]


def test_leftovers_longer_than_the_file_are_dropped(server, tmp_path):
    target = tmp_path / "archive.bin"
    target.with_name("archive.bin.part").write_bytes(BODY + b"more")
    assert download.fetch(f"{server.url}/whole", target).read_bytes() == BODY


def test_refusals_are_named(server, tmp_path):
    with pytest.raises(UserError, match="answered 404 Not Found"):
        download.fetch(f"{server.url}/missing", tmp_path / "x")
    server.shutdown()
    with pytest.raises(UserError, match="could not be downloaded"):
        download.fetch("http://127.0.0.1:1/x", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def member(name, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_extract(tmp_path):
    path = archive(tmp_path / "a.tar.gz", [(member("in/a.txt"), b"abc")])
    folder = download.extract(path, tmp_path / "out", max_bytes=10)
    assert (folder / "in" / "a.txt").read_bytes() == b"abc"


@pytest.mark.parametrize(
    "bad",
    [
        member("../escape.txt"),
        member("/tmp/audiodd-escape.txt"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("link", tarfile.SYMTYPE, "../../out"),
        member("device", tarfile.CHRTYPE),
    ],
    ids=lambda m: f"{m.name}-{m.linkname}",
)
def test_hostile_members_write_nothing(tmp_path, bad):
    inside = tmp_path / "place"
    inside.mkdir()
    path = archive(tmp_path / "a.tar.gz", [(member("good"), b"abc"), (bad, b"")])
    before = sorted(tmp_path.iterdir())
    if bad.name.startswith("/"):
        # Made relative by the filter: inside the folder, which is safe.
        download.extract(path, inside / "out", max_bytes=10)
        assert (inside / "out" / bad.name.lstrip("/")).exists()
    else:
        with pytest.raises(UserError, match="is not a sound archive"):
            download.extract(path, inside / "out", max_bytes=10)
        assert not list(inside.iterdir())
    assert sorted(tmp_path.iterdir()) == before


def test_too_large_and_truncated_archives(tmp_path):
    path = archive(tmp_path / "a.tar.gz", [(member("a"), bytes(5000))])
    with pytest.raises(UserError, match="unpacks to over 4999 bytes"):
        download.extract(path, tmp_path / "out", max_bytes=4999)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="is not a sound archive"):
        download.extract(path, tmp_path / "out", max_bytes=10**6)
    assert not (tmp_path / "out").exists()
