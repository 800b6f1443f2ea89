"""What a published dataset looks like, where it lies, and whether it is complete."""

import collections
import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from audiodd_jax.config import DataConfig
from audiodd_jax.data import archives, datasets, download
from audiodd_jax.data.recordings import fingerprint_files, fingerprint_tree
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.runtime.locks import exclusive

_log = logging.getLogger(__name__)


class Clip(NamedTuple):
    """A clip of a dataset as published.

    Attributes:
      path: of the file that holds it.
      name: unique in the dataset, as published.
      class_name: its class.
      part: the part of the official protocol: ``train``, ``validation``, ``test``, or
        ``fold3``.
      group: the recording or speaker that it comes from; empty where that is unknown.
      start: where in the file it begins, in seconds.
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
    """What a folder holds of a dataset.

    Attributes:
      clips: in a fixed order.
      missing: names that the dataset's own lists have and the folder has not.
      noise: recordings of background noise, which belong to no class.
    """

    clips: list[Clip]
    missing: list[str]
    noise: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Archive:
    """The archive as published.

    Attributes:
      file_name: what it is called.
      url: where it is downloaded from; empty where it must be asked for.
      checksum: ``algorithm:hexdigest``; empty where none is published.
      max_bytes: it unpacks to less.
      advice: how to come by it otherwise.
      may_change: the address serves the head of a branch, so that another checksum
        than the known one is told, not refused.
    """

    file_name: str
    url: str
    checksum: str
    max_bytes: int
    advice: str
    may_change: bool = False


@dataclasses.dataclass(frozen=True)
class Layout:
    """A dataset, or a configuration of one, as published.

    Attributes:
      name: of the registry.
      version: of the dataset, with its variant.
      class_names: in the order of the labels.
      parts: of the official protocol, in order.
      marker: a file or folder that only this dataset's folder has.
      holds: what the folder should hold, in words.
      archive: the published archive.
      find: folder -> what is there of the dataset.
      published: (class, part) -> number of clips; an empty class or part stands for
        all of them.
    """

    name: str
    version: str
    class_names: tuple[str, ...]
    parts: tuple[str, ...]
    marker: str
    holds: str
    archive: Archive
    find: Callable[[Path], Found]
    published: Mapping[tuple[str, str], int]


class Place(NamedTuple):
    """Where a dataset lies.

    Attributes:
      folder: with the recordings, or None.
      archive: as published, on this machine, or None.
      fingerprint: changes whenever the recordings may have.
    """

    folder: Path | None
    archive: Path | None
    fingerprint: str


def locate(layout: Layout, config: DataConfig, cache_dir: Path) -> Place:
    """Finds the folder or the archive that ``--data_dir`` points at, or the cache's.

    With neither a folder nor an archive, the dataset is to be downloaded.

    Raises:
      UserError: ``--data_dir`` holds nothing of the dataset, or it cannot be downloaded
        and is not there.
    """
    if config.data_dir:
        return _given(layout, Path(config.data_dir).expanduser())
    archive = cache_dir / "downloads" / layout.archive.file_name
    if not layout.archive.url and not archive.is_file():
        raise UserError(
            f"{datasets.lookup(layout.name).title} must be asked for: "
            f"{layout.archive.advice}; then put {layout.archive.file_name} into "
            f"{archive.parent}, or pass --data_dir with it or the unpacked folder"
        )
    if layout.archive.url:
        known = layout.archive.checksum.rpartition(":")[2] or layout.version
        return Place(None, None, f"published-{known[:16]}")
    return Place(None, archive, _of_archive(archive))


def _of_archive(archive: Path) -> str:
    return "archive-" + fingerprint_files([archive], archive.parent)


def _given(layout: Layout, place: Path) -> Place:
    """The place that ``--data_dir`` names: a folder, one above it, or the archive."""
    what = f"{layout.holds}, or the archive {layout.archive.file_name}"
    if place.is_file():
        if not archives.is_archive(place):
            raise UserError(f"--data_dir={place} is no archive; it should be {what}")
        return Place(None, place, _of_archive(place))
    if not place.is_dir():
        raise UserError(f"--data_dir={place} is not a folder; it should hold {what}")
    if folder := inside(place, layout.marker):
        return Place(folder, None, fingerprint_tree(folder))
    archive = place / layout.archive.file_name
    if archives.is_archive(archive):
        return Place(None, archive, _of_archive(archive))
    raise UserError(
        f"--data_dir={place} holds no {layout.marker}; it should hold {what}"
    )


def inside(place: Path, marker: str) -> Path | None:
    """``place``, or the folder above or the one folder in it, that has ``marker``."""
    if (place / marker).exists():
        return place
    if place.name == Path(marker).parts[0] and (place.parent / marker).exists():
        return place.parent
    below = [p for p in sorted(place.iterdir()) if (p / marker).exists()]
    return below[0] if len(below) == 1 else None


def unpacked(layout: Layout, place: Place, config: DataConfig, cache_dir: Path) -> Path:
    """The dataset's folder; downloads and unpacks where there is none yet.

    What is unpacked lies under the cache's ``unpacked`` and may be deleted after use.

    Raises:
      UserError: the archive cannot be had, or is not the published one.
    """
    if place.folder:
        return place.folder
    archive = place.archive or _download(layout, cache_dir)
    known = layout.archive.checksum
    wrong = download.mismatch(archive, known) if place.archive else ""
    if wrong and not (config.allow_partial or layout.archive.may_change):
        raise UserError(
            f"{archive} is not the archive as published ({wrong}); get it anew, or "
            "pass --allow_partial to use what it holds"
        )
    target = cache_dir / "unpacked" / f"{layout.name}-{place.fingerprint}"
    archives.extract(archive, target, layout.archive.max_bytes)
    folder = inside(target, layout.marker)
    if folder is None:
        raise UserError(f"{archive} holds no {layout.marker}; it is no {layout.name}")
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
            "%s has changed since its checksum was noted; its own checksums and the "
            "published counts decide",
            published.url,
        )
    return archive


def check(layout: Layout, found: Found, folder: Path, config: DataConfig) -> list[Clip]:
    """The clips, after a comparison with the published lists and counts.

    Raises:
      UserError: something is missing or too many, and ``allow_partial`` is not set;
        each is named.
    """
    wrong = [*_names(found.missing), *_counts(layout.published, found.clips)]
    title = datasets.lookup(layout.name).title
    if not found.clips:
        raise UserError(
            f"{folder} holds no clip of {title}; it should hold {layout.holds}"
        )
    if wrong:
        told = f"{folder} is not the whole of {title}: {'; '.join(wrong)}"
        if not config.allow_partial:
            raise UserError(
                f"{told}; complete it, or pass --allow_partial to use what is there"
            )
        _log.warning("%s; going on with what is there", told)
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
