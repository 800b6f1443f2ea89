"""Servers of S3 and Google Cloud Storage on the loopback address, with faults.

The servers are moto and gcp-storage-emulator. A proxy before them counts requests and
bytes, makes faults, and adds the preconditions that the emulator lacks.
"""

import contextlib
import http.client
import http.server
import json
import re
import threading
import time
import urllib.parse

import pytest

from audiodd_jax.runtime import object_store

BUCKET = "bucket"
# Servers of a fixture ``served``: of both kinds, the second one at night or always.
BOTH = ["s3", "gs"]
ONE = ["s3", pytest.param("gs", marks=pytest.mark.nightly)]
on_both = pytest.mark.parametrize("served", BOTH, indirect=True)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _forward(self):
        proxy = self.server
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while length := int(self.rfile.readline(), 16):
                body += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
        fault = proxy.next_fault(self.command, self.path)
        if isinstance(fault, float):
            time.sleep(fault)
        if isinstance(fault, int):
            code = {403: "InvalidAccessKeyId", 429: "SlowDown"}.get(fault, "Internal")
            text = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
            return self._answer(fault, {}, text.encode(), len(body))
        with proxy.lock if proxy.checks_generations else contextlib.nullcontext():
            if proxy.checks_generations and proxy.is_changed(self.path):
                return self._answer(412, {}, b"{}", len(body))
            headers = {k: v for k, v in self.headers.items() if k != "Host"}
            headers.pop("Transfer-Encoding", None)
            answer, data = proxy.ask(self.command, self.path, body, headers)
        if fault == "lost":  # done, but the answer never arrives
            self.close_connection = True
            return None
        dropped = ("connection", "content-length", "transfer-encoding", "date")
        dropped += ("server",)
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in dropped}
        if proxy.checks_generations and "alt=media" in self.path:
            # The emulator does not name the version of what it sends.
            headers["x-goog-generation"] = proxy.generation(self.path)
        return self._answer(answer.status, headers, data, len(body), fault)

    def _answer(self, status, headers, data, received, fault=None):
        self.server.log.append((self.command, self.path, received, len(data)))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command == "HEAD":
            self.send_header("Content-Length", headers.get("content-length", "0"))
            return self.end_headers()
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault == "cut":
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        else:
            self.wfile.write(data)
        return None

    do_GET = do_PUT = do_POST = _forward  # noqa: N815
    do_DELETE = do_HEAD = do_PATCH = _forward  # noqa: N815

    def log_message(self, *_):
        pass


class Store(http.server.ThreadingHTTPServer):
    """A proxy before a server of objects.

    Attributes:
      url: of a bucket, such as ``s3://bucket``.
      log: (method, path, bytes received, bytes sent) of each request.
      faults: what happens to the next requests: an HTTP status, seconds of delay
        (float), ``cut`` (half an answer), ``lost`` (no answer), or None.
      only: a pattern of "METHOD path" to which faults are limited.
      variables: environment variables that lead to this server.
    """

    daemon_threads = True

    def __init__(self, scheme, port, variables):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.lock = port, threading.RLock()
        self.checks_generations = scheme == "gs"
        self.url, self.log, self.faults, self.only = f"{scheme}://{BUCKET}", [], [], ""
        here = f"http://127.0.0.1:{self.server_port}"
        self.variables = {name: value or here for name, value in variables.items()}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):  # a client was killed
        pass

    def next_fault(self, method, path):
        with self.lock:
            is_hit = re.search(self.only, f"{method} {path}")
            return self.faults.pop(0) if self.faults and is_hit else None

    def ask(self, method, path, body=b"", headers=None):
        """Sends a request to the server itself."""
        upstream = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        try:
            upstream.request(method, path, body, headers or {})
            answer = upstream.getresponse()
            return answer, answer.read()
        finally:
            upstream.close()

    def generation(self, path):
        plain = path.split("?")[0].replace("/download/", "/")
        answer, data = self.ask("GET", plain)
        return json.loads(data)["generation"] if answer.status == 200 else "0"

    def is_changed(self, path):
        """Returns whether a request asks for another generation of an object."""
        parts = urllib.parse.urlsplit(path)
        query = urllib.parse.parse_qs(parts.query)
        if "ifGenerationMatch" not in query:
            return False
        place = parts.path.replace("/upload/", "/")
        if "name" in query:
            place += "/" + urllib.parse.quote(query["name"][0], safe="")
        return self.generation(place) != query["ifGenerationMatch"][0]

    def counted(self):
        """The numbers of requests, listings, bytes received, and bytes sent."""
        listings = [p for m, p, *_ in self.log if m == "GET" and "prefix=" in p]
        received, sent = (sum(row[i] for row in self.log) for i in (2, 3))
        return len(self.log), len(listings), received, sent


@contextlib.contextmanager
def serving(scheme):
    """Starts a server and its proxy, with an empty bucket."""
    if scheme == "s3":
        server = pytest.importorskip("moto.server").ThreadedMotoServer
        pytest.importorskip("s3fs")
        server = server("127.0.0.1", 0, verbose=False)
        server.start()
        port, variables = server.get_host_and_port()[1], {"AWS_ENDPOINT_URL": ""}
        variables |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "x")
        variables["AWS_DEFAULT_REGION"] = "us-east-1"
    else:
        server = pytest.importorskip("gcp_storage_emulator.server").create_server
        pytest.importorskip("gcsfs")
        server = server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
        server.start()
        while server._api._httpd is None:
            time.sleep(0.01)
        port, variables = server._api._httpd.server_port, {"STORAGE_EMULATOR_HOST": ""}
    store = Store(scheme, port, variables)
    object_store._bucket.cache_clear()  # those of an earlier server
    try:
        if scheme == "s3":
            # Objects of an earlier server of this process are dropped.
            store.ask("POST", "/moto-api/reset")
            store.ask("PUT", f"/{BUCKET}")
        yield store
    finally:
        store.shutdown()
        store.server_close()
        server.stop()


def reset(store, monkeypatch):
    """Makes a server free of faults, and lets new clients find it."""
    object_store._bucket.cache_clear()
    store.faults, store.log, store.only = [], [], ""
    for name, value in store.variables.items():
        monkeypatch.setenv(name, value)
