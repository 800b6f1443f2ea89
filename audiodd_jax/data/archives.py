"""Unpacking a tar or zip archive without trusting it."""

import contextlib
import errno
import io
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol, runtime_checkable

from tqdm import tqdm

from audiodd_jax.runtime.errors import UserError

_BLOCK = 1 << 20
# The largest dataset here has 105,835 files; an archive of millions is a bomb too.
_MAX_FILES = 1_000_000
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,  # an encrypted zip member, or one packed in a way zipfile lacks
)
# What goes wrong whatever the archive holds.
_OUR_FAULT = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


@runtime_checkable
class _Readable(Protocol):
    """What an archive gives for a member: no common class, but it can be read."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes."""
        ...


class _Member(NamedTuple):
    """A member of an archive: its name, size, kind, and how to read it."""

    name: str
    size: int
    kind: str
    open: Callable[[], _Readable]


def is_archive(path: Path) -> bool:
    """Whether ``path`` looks like a tar or zip archive that can be unpacked."""
    if not path.is_file():
        return False
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except (*_DAMAGE, OSError):
        return False


def extract(archive: Path, folder: Path, max_bytes: int) -> Path:
    """Unpacks a tar or zip archive to ``folder``, wholly or not at all.

    Only plain files and folders below ``folder`` are written: an archive with any
    other member, or one that unpacks to more than ``max_bytes``, is refused.

    Raises:
      UserError: a damaged, hostile or oversized archive.
    """
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
    try:
        _unpack(archive, scratch, max_bytes)
        os.replace(scratch, folder)
    except _DAMAGE as error:
        raise _unsound(archive, error) from error
    except OSError as error:
        if error.errno in _OUR_FAULT:
            raise
        # A bad gzip header, a name twice, a name too long: the archive's fault.
        raise _unsound(archive, error) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(scratch)
    return folder


def _unsound(archive: Path, error: Exception) -> UserError:
    return UserError(
        f"{archive} is not a sound archive ({error or type(error).__name__}); delete "
        "it to download it anew"
    )


def _unpack(archive: Path, folder: Path, max_bytes: int) -> None:
    left = max_bytes
    with (
        tqdm(unit="file", desc=f"unpacking {archive.name}", disable=None) as bar,
        contextlib.closing(_members(archive)) as members,
    ):
        for count, member in enumerate(members):
            if count >= _MAX_FILES:
                raise UserError(f"{archive} holds over {_MAX_FILES} members")
            target = _target(archive, member, folder)
            if member.kind == "folder":
                target.mkdir(parents=True, exist_ok=True)
                continue
            left -= member.size
            if left < 0:
                raise UserError(f"{archive} unpacks to over {max_bytes} bytes")
            target.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, target.open("xb") as file:
                # Never more than was announced, whatever the data expand to.
                written = _copy(source, file, member.size)
            if written != member.size:
                raise EOFError(f"{member.name} has {written} of {member.size} bytes")
            bar.update()


def _copy(source: _Readable, target: io.BufferedIOBase, size: int) -> int:
    written = 0
    while written < size and (block := source.read(min(_BLOCK, size - written))):
        written += target.write(block)
    return written


def _target(archive: Path, member: _Member, folder: Path) -> Path:
    """Where a member goes, which is below ``folder``."""
    name = PurePosixPath(member.name)
    if member.kind not in ("file", "folder"):
        raise UserError(f"{archive} is refused: {member.name} is a {member.kind}")
    outside = name.is_absolute() or ".." in name.parts
    if outside or "\\" in member.name or ":" in member.name or "\0" in member.name:
        raise UserError(f"{archive} is refused: {member.name} lies outside of it")
    return folder / name


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                yield _Member(
                    info.filename,
                    info.file_size,
                    _zip_kind(info),
                    lambda info=info: packed.open(info),
                )
        return
    with tarfile.open(archive) as packed:
        for info in packed:
            yield _Member(
                info.name,
                info.size,
                _tar_kind(info),
                lambda info=info: packed.extractfile(info),
            )


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "link"
    if info.is_dir():
        return "folder"
    # Archives made elsewhere than on Unix carry no mode.
    return "file" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "device"


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.isreg() and not info.issparse():
        return "file"
    if info.isdir():
        return "folder"
    return "link" if info.issym() or info.islnk() else "device or sparse file"
