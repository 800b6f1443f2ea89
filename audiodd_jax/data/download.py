"""Fetching a published archive, and unpacking it without trusting it."""

import contextlib
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from audiodd_jax.runtime.errors import UserError

_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 60


def fetch(url: str, target: Path) -> Path:
    """Downloads ``url`` to ``target``, continuing what an earlier call left.

    The bytes gather in ``target`` with ``.part`` appended, which becomes ``target``
    only when the server's length has arrived.

    Raises:
      UserError: the server cannot be reached, refuses, or sends less than it said.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    have = part.stat().st_size if part.exists() else 0
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
                total=total, initial=done, unit="B", unit_scale=True, desc=target.name
            )
            with bar, part.open("ab" if resumed else "wb") as file:
                while block := reply.read(_BLOCK):
                    file.write(block)
                    bar.update(len(block))
    except urllib.error.HTTPError as error:
        if error.code == 416:  # what is there does not fit the server's file
            part.unlink()
            return fetch(url, target)
        raise UserError(f"{url} answered {error.code} {error.reason}") from error
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"{url} could not be downloaded ({reason})") from error
    size = part.stat().st_size
    if total is not None and size != total:
        raise UserError(
            f"the download of {url} ended after {size} of {total} bytes; the same "
            "command continues it"
        )
    os.replace(part, target)
    return target


def extract(archive: Path, folder: Path, max_bytes: int) -> Path:
    """Unpacks a tar archive to ``folder``, wholly or not at all.

    Members that would land outside, links out of it and devices are refused, as is
    an archive that unpacks to more than ``max_bytes``.

    Raises:
      UserError: a damaged, hostile or oversized archive.
    """
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
    try:
        with tarfile.open(archive) as tar:
            total = 0
            for member in tar:
                total += member.size
                if total > max_bytes:
                    raise UserError(f"{archive} unpacks to over {max_bytes} bytes")
                tar.extract(member, scratch, filter="data")
        os.replace(scratch, folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(
            f"{archive} is not a sound archive ({error}); delete it to download it anew"
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(scratch)
    return folder
