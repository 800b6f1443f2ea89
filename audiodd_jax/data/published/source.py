"""Published datasets: found, downloaded, unpacked, checked, and read as clips."""

import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from audiodd_jax.config import DataConfig
from audiodd_jax.data import archives, audio, datasets, download
from audiodd_jax.data.clips import Clip, Decoder, index
from audiodd_jax.data.published.layout import Contents, Layout, check
from audiodd_jax.data.recordings import (
    TEST,
    TRAIN,
    VALIDATION,
    Decoded,
    Recordings,
    Source,
    fingerprint_files,
    fingerprint_tree,
)
from audiodd_jax.data.tree import LeftOut, is_hidden, recordings
from audiodd_jax.errors import UserError
from audiodd_jax.runtime.locks import exclusive

_log = logging.getLogger(__name__)


class Location(NamedTuple):
    """The location of a dataset; with neither folder nor archive it is downloaded.

    Attributes:
      fingerprint: changes when the recordings may have changed.
    """

    folder: Path | None
    archive: Path | None
    fingerprint: str


def open_source(layout: Layout, config: DataConfig) -> Source:
    """Finds the dataset that ``layout`` describes.

    Raises:
      UserError: it is neither available nor downloadable.
    """
    location = _locate(layout, config)
    marks = [location.fingerprint, layout.version.replace(" ", "-").replace(",", "")]
    if config.allow_partial:
        marks.append("partial")
    if config.skip_bad_files:
        marks.append("skipped")
    return Source(
        name=layout.name,
        version=layout.version,
        licence=datasets.lookup(layout.name).licence,
        fingerprint="-".join(marks),
        read=functools.partial(_read, layout, location, config),
    )


def _read(layout: Layout, location: Location, config: DataConfig) -> Recordings:
    """Returns the index of a dataset; downloads and unpacks it if needed."""
    cache = datasets.cache_root(config)
    _show_licence(layout.name, cache)
    may_differ = config.allow_partial or layout.may_change
    folder = location.folder or _unpacked(layout, location, may_differ, cache)
    try:
        contents = layout.find(folder)
        check(layout, contents, folder, config)
    except UserError as error:
        if location.folder:
            raise
        raise UserError(f"{error}; or delete {folder} to unpack it again") from error
    # In the order of the official parts, on which random draws depend.
    clips = sorted(contents.clips, key=_part_number)
    # A partial dataset may lack classes.
    present = {clip.labels[0] for clip in clips}
    class_names = tuple(name for name in layout.class_names if name in present)
    load_noise = functools.partial(_load_noise, contents.noise, config.skip_bad_files)
    return index(
        clips,
        class_names,
        has_tags=False,
        is_int16=True,
        load_noise=load_noise if contents.noise else None,
        left_out=_left_out(folder, contents),
    )


def _show_licence(name: str, cache: Path) -> None:
    """Logs a dataset's licence the first time that it is prepared in this cache."""
    entry = datasets.lookup(name)
    shown = cache / "licences" / name
    if shown.exists():
        return
    _log.info("%s: licence %s; %s", entry.title, entry.licence, entry.homepage)
    shown.parent.mkdir(parents=True, exist_ok=True)
    shown.write_text(f"{entry.licence}\n")


def _part_number(clip: Clip) -> int:
    return clip.fold or (TRAIN, VALIDATION, TEST).index(clip.split)


def _load_noise(noise: Sequence[Path], skip_bad: bool) -> list[Decoded]:
    decode = Decoder([Clip(path, ()) for path in noise], is_int16=True)
    decoded, bad = [], []
    for i in range(len(noise)):
        try:
            decoded.append(decode(i))
        except audio.BadAudioError as error:
            bad.append(error)
    audio.report_bad(bad, skip_bad)
    return decoded


def _left_out(folder: Path, contents: Contents) -> tuple[tuple[str, int, str], ...]:
    """Counts recordings that are not part of the dataset, and other files."""
    left_out = LeftOut()
    paths = (*(clip.path for clip in contents.clips), *contents.noise)
    used = set(map(os.path.abspath, paths))
    for path in recordings(folder, left_out):
        if os.path.abspath(path) not in used:
            left_out.add("recording that is not part of this dataset", path)
    return left_out.rows()


def _locate(layout: Layout, config: DataConfig) -> Location:
    """Finds the folder or archive of ``--data_dir``, or the archive in the cache."""
    if config.data_dir:
        return _given(layout, Path(config.data_dir).expanduser())
    archive = datasets.cache_root(config) / "downloads" / layout.archive
    if layout.url:
        version = layout.checksum.rpartition(":")[2] or layout.version
        return Location(None, None, f"published-{version[:16]}")
    if archive.is_file():
        return _of_archive(archive)
    raise UserError(
        f"{datasets.lookup(layout.name).title} is not downloaded by this program: "
        f"{layout.advice}; then put {layout.archive} into {archive.parent}, "
        "or pass it or the unpacked folder with --data_dir"
    )


def _of_archive(archive: Path) -> Location:
    fingerprint = fingerprint_files([archive], archive.parent)
    return Location(None, archive, f"archive-{fingerprint}")


def _given(layout: Layout, path: Path) -> Location:
    """The location in ``--data_dir``: a folder, one near it, or the archive."""
    what = f"{layout.holds}, or the archive {layout.archive}"
    if path.is_file():
        if not archives.is_archive(path):
            raise UserError(f"--data_dir={path} is not an archive; it should be {what}")
        return _of_archive(path)
    if not path.is_dir():
        raise UserError(f"--data_dir={path} is not a folder; it should hold {what}")
    if folder := _inside(path, layout.markers):
        if folder != path:
            _log.info("reading %s from %s", layout.name, folder)
        return Location(folder, None, fingerprint_tree(folder))
    archive = path / layout.archive
    if archives.is_archive(archive):
        return _of_archive(archive)
    raise UserError(
        f"--data_dir={path} holds no {layout.markers[0]}; it should hold {what}"
    )


def _inside(path: Path, markers: Sequence[str]) -> Path | None:
    """The folder with a marker: ``path``, its parent, or the only one below it.

    Archives and mirrors put datasets into folders up to two levels deep.
    """

    def has_marker(folder: Path) -> bool:
        return any((folder / marker).exists() for marker in markers)

    tops = {Path(marker).parts[0] for marker in markers}
    if path.name in tops and has_marker(path.parent):
        return path.parent
    if has_marker(path):
        return path
    level = [path]
    for _ in range(2):
        level = [
            p
            for folder in level
            for p in sorted(folder.iterdir())
            if p.is_dir() and not is_hidden(p.name)
        ]
        if marked := [p for p in level if has_marker(p)]:
            return marked[0] if len(marked) == 1 else None
    return None


def _unpacked(
    layout: Layout, location: Location, may_differ: bool, cache: Path
) -> Path:
    """Returns the dataset's folder in the cache; downloads and unpacks it if needed."""
    name = f"{layout.archive}-{location.fingerprint}"
    if location.archive and may_differ:
        name += "-unverified"
    target = cache / "unpacked" / name
    with exclusive(cache / "locks" / layout.archive, "unpacking this dataset"):
        if not target.is_dir():
            archive = location.archive or _download(layout, cache)
            is_checked = location.archive and not may_differ
            if wrong := is_checked and download.mismatch(archive, layout.checksum):
                raise UserError(
                    f"{archive} is not the published archive ({wrong}); download it "
                    "again, or pass --allow_partial to use what it holds"
                )
            archives.extract(archive, target, layout.max_bytes)
    folder = _inside(target, layout.markers)
    if folder is None:
        raise UserError(
            f"{location.archive or layout.archive} holds no {layout.markers[0]}; "
            f"it is not {layout.name}, or files are missing from {target}: delete "
            "that folder to unpack it again"
        )
    return folder


def _download(layout: Layout, cache: Path) -> Path:
    target = cache / "downloads" / layout.archive
    checksum = "" if layout.may_change else layout.checksum
    try:
        archive = download.fetch(layout.url, target, checksum)
    except UserError as error:
        raise UserError(f"{error}; or {layout.advice}") from error
    if layout.may_change and download.mismatch(archive, layout.checksum):
        _log.info(
            "%s has changed since its checksum was recorded; it is checked by its own "
            "checksums and the published counts",
            layout.url,
        )
    return archive
