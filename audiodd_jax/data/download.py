"""Resumable downloads of published archives, verified by checksum."""

import hashlib
import http.client
import logging
import os
import urllib.error
import urllib.request
from pathlib import Path

from audiodd_jax.errors import UserError
from audiodd_jax.runtime import progress

_log = logging.getLogger(__name__)

_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 60
# Attempts after lost connections, as long as each receives bytes.
_ATTEMPTS = 5
# Exceptions of a lost connection.
_LOST = (http.client.HTTPException, ConnectionError, TimeoutError)
_BYTES = {"unit": "B", "unit_scale": True}


def fetch(url: str, target: Path, checksum: str = "") -> Path:
    """Downloads ``url`` to ``target`` unless it exists, resuming an earlier download.

    Bytes go to ``target`` with ``.part`` appended, which is renamed once it has the
    server's length and the right checksum (``algorithm:hexdigest``, or empty).

    Raises:
      UserError: no server, a refusal, or an incomplete or different file.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for attempt in range(_ATTEMPTS):
        before = _size(part)
        total = _request_rest(url, part, target.name)
        size = _size(part)
        if total is None or size == total:
            break
        if size == before or attempt == _ATTEMPTS - 1:
            raise UserError(
                f"the download of {url} ended after {size} of {total} bytes; the same "
                "command resumes it"
            )
        _log.info("connection lost after %d of %d bytes; retrying", size, total)
    if wrong := mismatch(part, checksum):
        part.unlink()
        raise UserError(
            f"{url} sent a file that differs from the published one: {wrong}"
        )
    os.replace(part, target)
    return target


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _request_rest(url: str, part: Path, name: str) -> int | None:
    """Adds what the server sends of the rest; returns the total length if known."""
    start = _size(part)
    headers = {"Range": f"bytes={start}-"} if start else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as reply:
            is_resumed = reply.status == 206
            start = start if is_resumed else 0
            length = reply.headers.get("Content-Length")
            total = int(length) + start if length else None
            with (
                progress.bar(total, initial=start, desc=name, **_BYTES) as bar,
                part.open("ab" if is_resumed else "wb") as file,
            ):
                try:
                    while block := reply.read(_BLOCK):
                        file.write(block)
                        bar.update(len(block))
                except _LOST:
                    if total is None:
                        raise
            return total
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # longer than the server's file
            part.unlink()
            return _request_rest(url, part, name)
        raise UserError(f"{url} answered {error.code} {error.reason}") from error
    except (*_LOST, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"{url} could not be downloaded ({reason})") from error


def mismatch(file: Path, checksum: str) -> str:
    """Describes how a file differs from its checksum; empty if it does not.

    An empty checksum matches every file.
    """
    if not checksum:
        return ""
    algorithm, _, expected = checksum.partition(":")
    digest = hashlib.new(algorithm)
    with (
        file.open("rb") as stream,
        progress.bar(_size(file), desc=f"checking {file.name}", **_BYTES) as bar,
    ):
        while block := stream.read(_BLOCK):
            digest.update(block)
            bar.update(len(block))
    if digest.hexdigest() == expected:
        return ""
    return f"its {algorithm} is {digest.hexdigest()}, not {expected}"
