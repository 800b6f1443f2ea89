"""Unpacking of untrusted tar and zip archives.

Members are checked and copied here: ``tarfile``'s data filter allows links, and neither
it nor ``zipfile`` limits sizes or refuses duplicates.
"""

import contextlib
import errno
import functools
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from audiodd_jax.errors import UserError
from audiodd_jax.runtime import progress
from audiodd_jax.runtime.files import atomic_folder

_BLOCK = 1 << 20
# The largest published dataset has 105,835 files; millions are an attack.
_MAX_FILES = 1_000_000
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,  # a zip member that is encrypted or of an unknown compression
    *(IndexError, KeyError, ValueError, OverflowError, struct.error),  # damaged headers
)
# Errors of the local file system rather than the archive.
_LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


class _Member(NamedTuple):
    """A member of an archive; ``open`` returns a binary file."""

    name: str
    size: int
    kind: str
    open: Callable[[], Any]


def is_archive(path: Path) -> bool:
    """True if ``path`` is a tar or zip archive."""
    if not path.is_file():
        return False
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except (*_DAMAGE, OSError):
        return False


def extract(archive: Path, folder: Path, max_bytes: int) -> Path:
    """Unpacks a tar or zip archive to ``folder``, atomically, unless it exists.

    Raises:
      UserError: a damaged archive, one of more than ``max_bytes``, or one with anything
        else than regular files and folders below ``folder``.
    """
    if folder.exists():
        return folder
    try:
        with atomic_folder(folder) as scratch:
            _unpack(archive, scratch, max_bytes)
    except (*_DAMAGE, OSError) as error:
        # Bad gzip headers, duplicate names and long names are OSErrors too.
        if isinstance(error, OSError) and error.errno in _LOCAL:
            raise
        raise UserError(
            f"{archive} is a damaged archive ({error or type(error).__name__}); "
            "delete it to download it again"
        ) from error
    return folder


def _unpack(archive: Path, folder: Path, max_bytes: int) -> None:
    remaining = max_bytes
    with (
        progress.bar(unit="file", desc=f"unpacking {archive.name}") as bar,
        contextlib.closing(_members(archive)) as members,
    ):
        for count, member in enumerate(members):
            if count >= _MAX_FILES:
                raise UserError(f"{archive} holds over {_MAX_FILES} members")
            if member.kind not in ("file", "folder"):
                raise UserError(
                    f"{archive} is refused: {member.name} is a {member.kind}"
                )
            name = PurePosixPath(member.name)
            is_outside = name.is_absolute() or ".." in name.parts
            if is_outside or any(c in member.name for c in "\\:\0"):
                raise UserError(
                    f"{archive} is refused: {member.name} is outside the archive's "
                    "folder"
                )
            target = folder / name
            if member.kind == "folder":
                target.mkdir(parents=True, exist_ok=True)
                continue
            remaining -= member.size
            if remaining < 0:
                raise UserError(f"{archive} unpacks to over {max_bytes} bytes")
            target.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, target.open("xb") as file:
                # Both libraries read no more bytes than the header announces.
                shutil.copyfileobj(source, file, _BLOCK)
                written = file.tell()
            if written != member.size:
                raise EOFError(f"{member.name} has {written} of {member.size} bytes")
            bar.update()


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                mode = info.external_attr >> 16
                # Archives that were not written on Unix have no mode.
                is_regular = stat.S_IFMT(mode) in (0, stat.S_IFREG)
                kind = "file" if is_regular else "device"
                if info.is_dir():
                    kind = "folder"
                if stat.S_ISLNK(mode):
                    kind = "link"
                content = functools.partial(packed.open, info)
                yield _Member(info.filename, info.file_size, kind, content)
        return
    with tarfile.open(archive) as packed:
        for info in packed:
            kind = "device or sparse file"
            if info.issym() or info.islnk():
                kind = "link"
            elif info.isdir():
                kind = "folder"
            elif info.isreg() and not info.issparse():
                kind = "file"
            content = functools.partial(packed.extractfile, info)
            yield _Member(info.name, info.size, kind, content)
