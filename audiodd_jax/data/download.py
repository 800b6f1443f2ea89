"""Downloads of published archives, resumed when interrupted, verified by checksum."""

import hashlib
import http.client
import logging
import os
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from audiodd_jax.errors import UserError

_log = logging.getLogger(__name__)

_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 60
# Attempts after lost connections, as long as bytes keep coming.
_ATTEMPTS = 5


def fetch(url: str, target: Path, checksum: str = "") -> Path:
    """Downloads ``url`` to ``target``, resuming an earlier download.

    Bytes are written to ``target`` with ``.part`` appended, which is renamed when it
    has the server's length and the right checksum.

    Args:
      url: http or https.
      target: path of the file; nothing is done if it exists.
      checksum: ``algorithm:hexdigest``, or empty.

    Raises:
      UserError: the server cannot be reached, refuses, or sends an incomplete or
        different file.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for attempt in range(_ATTEMPTS):
        before = _size(part)
        total = _continue(url, part, target.name)
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
        raise UserError(f"{url} sent another file than was published: {wrong}")
    os.replace(part, target)
    return target


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _continue(url: str, part: Path, name: str) -> int | None:
    """Requests the rest of ``part``; returns the total length, if it is known."""
    have = _size(part)
    request = urllib.request.Request(url)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as reply:
            resumed = reply.status == 206
            length = reply.headers.get("Content-Length")
            done = have if resumed else 0
            total = int(length) + done if length else None
            bar = tqdm(
                total=total,
                initial=done,
                unit="B",
                unit_scale=True,
                desc=name,
                disable=None,
            )
            with bar, part.open("ab" if resumed else "wb") as file:
                try:
                    while block := reply.read(_BLOCK):
                        file.write(block)
                        bar.update(len(block))
                except (http.client.HTTPException, ConnectionError, TimeoutError):
                    # Received bytes are kept; the caller requests the rest.
                    if total is None:
                        raise
            return total
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # longer than the server's file
            part.unlink()
            return _continue(url, part, name)
        raise UserError(f"{url} answered {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"{url} could not be downloaded ({reason})") from error
    except ConnectionError as error:
        raise UserError(f"{url} could not be downloaded ({error})") from error


def mismatch(file: Path, checksum: str) -> str:
    """How ``file`` differs from ``algorithm:hexdigest``; empty if it matches.

    An empty checksum matches every file.
    """
    if not checksum:
        return ""
    algorithm, _, expected = checksum.partition(":")
    digest = hashlib.new(algorithm)
    with (
        file.open("rb") as stream,
        tqdm(
            total=_size(file),
            unit="B",
            unit_scale=True,
            desc=f"checking {file.name}",
            disable=None,
        ) as bar,
    ):
        while block := stream.read(_BLOCK):
            digest.update(block)
            bar.update(len(block))
    found = digest.hexdigest()
    if found == expected:
        return ""
    return f"its {algorithm} is {found}, not {expected}"
