"""The layout of a published dataset: finding it, unpacking it, checking it."""

import collections
import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from audiodd_jax.config import DataConfig
from audiodd_jax.data import archives, datasets, download
from audiodd_jax.data.files_found import is_hidden
from audiodd_jax.data.recordings import fingerprint_files, fingerprint_tree
from audiodd_jax.errors import UserError
from audiodd_jax.runtime.locks import exclusive

_log = logging.getLogger(__name__)


class Clip(NamedTuple):
    """A clip of a dataset as published.

    Attributes:
      path: of its file.
      name: unique in the dataset, as published.
      class_name: its class.
      part: of the official protocol: ``train``, ``validation``, ``test``, or ``fold3``.
      group: source recording or speaker; empty if unknown.
      start: offset in the file, in seconds.
      seconds: its length; 0 for the whole file.
      gain: factor on the waveform.
    """

    path: Path
    name: str
    class_name: str
    part: str
    group: str = ""
    start: float = 0.0
    seconds: float = 0.0
    gain: float = 1.0


class Found(NamedTuple):
    """The clips of a dataset that are in a folder.

    Attributes:
      clips: in a fixed order.
      missing: names in the dataset's lists without a file.
      noise: recordings of background noise, which belong to no class.
    """

    clips: list[Clip]
    missing: list[str]
    noise: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Archive:
    """A published archive.

    Attributes:
      file_name: its name.
      url: to download it from; empty if users download it themselves.
      checksum: ``algorithm:hexdigest``, or empty.
      max_bytes: upper limit of its unpacked size.
      advice: how to get it otherwise.
      may_change: whether the URL serves the head of a branch; another checksum is then
        logged instead of refused.
    """

    file_name: str
    url: str
    checksum: str
    max_bytes: int
    advice: str
    may_change: bool = False


@dataclasses.dataclass(frozen=True)
class Layout:
    """A dataset, or a variant of one, as published.

    Attributes:
      name: of the registry.
      version: of the dataset, with its variant.
      class_names: in the order of the labels.
      parts: of the official protocol, in order.
      markers: files or folders, one of which identifies the dataset's folder.
      holds: content of the folder, in words.
      archive: the published archive.
      find: folder -> the clips in it.
      published: (class, part) -> number of clips; an empty class or part means all.
    """

    name: str
    version: str
    class_names: tuple[str, ...]
    parts: tuple[str, ...]
    markers: tuple[str, ...]
    holds: str
    archive: Archive
    find: Callable[[Path], Found]
    published: Mapping[tuple[str, str], int]


class Place(NamedTuple):
    """The location of a dataset.

    Attributes:
      folder: with the recordings, or None.
      archive: the local archive, or None.
      fingerprint: changes when the recordings may have changed.
    """

    folder: Path | None
    archive: Path | None
    fingerprint: str


def locate(layout: Layout, config: DataConfig, cache_dir: Path) -> Place:
    """Finds the folder or archive of ``--data_dir``, or the archive in the cache.

    A location with neither must be downloaded.

    Raises:
      UserError: ``--data_dir`` does not hold the dataset, or the dataset cannot be
        downloaded and is not in the cache.
    """
    if config.data_dir:
        return _given(layout, Path(config.data_dir).expanduser())
    archive = cache_dir / "downloads" / layout.archive.file_name
    if not layout.archive.url and not archive.is_file():
        title = datasets.lookup(layout.name).title
        raise UserError(
            f"{title} is not downloaded by this program: {layout.archive.advice}; "
            f"then put {layout.archive.file_name} into {archive.parent}, "
            "or pass it or the unpacked folder with --data_dir"
        )
    if layout.archive.url:
        known = layout.archive.checksum.rpartition(":")[2] or layout.version
        return Place(None, None, f"published-{known[:16]}")
    return Place(None, archive, _of_archive(archive))


def _of_archive(archive: Path) -> str:
    return "archive-" + fingerprint_files([archive], archive.parent)


def _given(layout: Layout, place: Path) -> Place:
    """The location in ``--data_dir``: a folder, one above it, or the archive."""
    what = f"{layout.holds}, or the archive {layout.archive.file_name}"
    if place.is_file():
        if not archives.is_archive(place):
            raise UserError(f"--data_dir={place} is no archive; it should be {what}")
        return Place(None, place, _of_archive(place))
    if not place.is_dir():
        raise UserError(f"--data_dir={place} is not a folder; it should hold {what}")
    if folder := inside(place, layout.markers):
        if folder != place:
            _log.info("reading %s from %s", layout.name, folder)
        return Place(folder, None, fingerprint_tree(folder))
    archive = place / layout.archive.file_name
    if archives.is_archive(archive):
        return Place(None, archive, _of_archive(archive))
    raise UserError(
        f"--data_dir={place} holds no {layout.markers[0]}; it should hold {what}"
    )


def inside(place: Path, markers: Sequence[str]) -> Path | None:
    """The folder with a marker: ``place``, its parent, or the only one below it.

    Archives and mirrors put datasets into folders up to two levels deep.
    """
    has = lambda folder: any((folder / marker).exists() for marker in markers)
    tops = {Path(marker).parts[0] for marker in markers}
    if place.name in tops and has(place.parent):
        return place.parent
    if has(place):
        return place
    level = [place]
    for _ in range(2):
        level = [
            p
            for folder in level
            for p in sorted(folder.iterdir())
            if p.is_dir() and not is_hidden(p.name)
        ]
        if found := [p for p in level if has(p)]:
            return found[0] if len(found) == 1 else None
    return None


def first_existing(folder: Path, names: Sequence[str]) -> Path:
    """The first of some paths below ``folder`` that exists, or else the first."""
    paths = [folder / name for name in names]
    return next((path for path in paths if path.exists()), paths[0])


def unpacked(layout: Layout, place: Place, config: DataConfig, cache_dir: Path) -> Path:
    """The dataset's folder; downloads and unpacks the archive if needed.

    Archives are unpacked in the cache, in ``unpacked``, and may be deleted after use.

    Raises:
      UserError: the archive cannot be downloaded, or is not the published one.
    """
    if place.folder:
        return place.folder
    archive = place.archive or _download(layout, cache_dir)
    known = layout.archive.checksum
    wrong = download.mismatch(archive, known) if place.archive else ""
    if wrong and not (config.allow_partial or layout.archive.may_change):
        raise UserError(
            f"{archive} is not the published archive ({wrong}); download it again, or "
            "pass --allow_partial to use what it holds"
        )
    target = cache_dir / "unpacked" / f"{layout.name}-{place.fingerprint}"
    archives.extract(archive, target, layout.archive.max_bytes)
    folder = inside(target, layout.markers)
    if folder is None:
        raise UserError(
            f"{archive} holds no {layout.markers[0]}; it is not {layout.name}"
        )
    return folder


def _download(layout: Layout, cache_dir: Path) -> Path:
    published = layout.archive
    target = cache_dir / "downloads" / published.file_name
    checksum = "" if published.may_change else published.checksum
    lock = cache_dir / "locks" / published.file_name
    try:
        with exclusive(lock, f"downloading {published.file_name}"):
            archive = download.fetch(published.url, target, checksum)
    except UserError as error:
        raise UserError(f"{error}; or {published.advice}") from error
    if published.may_change and download.mismatch(archive, published.checksum):
        _log.info(
            "%s has changed since its checksum was recorded; it is checked by its own "
            "checksums and the published counts",
            published.url,
        )
    return archive


def check(layout: Layout, found: Found, folder: Path, config: DataConfig) -> list[Clip]:
    """The clips, compared with the published lists and counts.

    Raises:
      UserError: counts differ, and ``allow_partial`` is not set.
    """
    wrong = [*_names(found.missing), *_counts(layout.published, found.clips)]
    title = datasets.lookup(layout.name).title
    if not found.clips:
        raise UserError(
            f"{folder} holds no clip of {title}; it should hold {layout.holds}"
        )
    if wrong:
        text = f"{folder} is not all of {title}: {'; '.join(wrong)}"
        if not config.allow_partial:
            raise UserError(
                f"{text}; complete it, or pass --allow_partial to use what is there"
            )
        _log.warning("%s; using what is there", text)
    return found.clips


def _names(missing: list[str]) -> Iterable[str]:
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        yield f"{len(missing)} recordings are missing, {', '.join(missing[:5])}{more}"


def _counts(
    published: Mapping[tuple[str, str], int], clips: list[Clip]
) -> Iterable[str]:
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for clip in clips:
        for class_name in ("", clip.class_name):
            for part in ("", clip.part):
                counts[class_name, part] += 1
    wrong = [
        f"{' in '.join(filter(None, key)) or 'all'}: {counts[key]} of {expected} clips"
        for key, expected in published.items()
        if counts[key] != expected
    ]
    yield from wrong[:6]
    if len(wrong) > 6:
        yield f"and {len(wrong) - 6} more counts"
