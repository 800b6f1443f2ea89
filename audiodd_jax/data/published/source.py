"""Published datasets: found, downloaded, unpacked, checked, and read as clips."""

import collections
import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from audiodd_jax.config import DataConfig
from audiodd_jax.config.user_paths import expanded
from audiodd_jax.data import archives, audio, datasets, download, recordings, tree
from audiodd_jax.data.recordings import Clip, Recordings, Source
from audiodd_jax.errors import UserError, counted
from audiodd_jax.runtime.files import exclusive

_log = logging.getLogger(__name__)


class Contents(NamedTuple):
    """The clips of a dataset that are in a folder."""

    clips: list[Clip]  # in a fixed order
    missing: list[str]  # names in the dataset's lists without a file
    noise: tuple[Path, ...] = ()  # recordings that belong to no class
    # Numbers of clips, if they are not those of the layout.
    published: Mapping[tuple[str, str], int] | None = None


@dataclasses.dataclass(frozen=True)
class Layout:
    """A dataset, or a variant of one, as published."""

    class_names: tuple[str, ...]  # in the order of the labels
    markers: tuple[str, ...]  # files or folders, one of which identifies its folder
    holds: str  # content of the folder, in words
    find: Callable[[Path], Contents]
    # (class, part) -> number of clips; an empty class or part means all.
    published: Mapping[tuple[str, str], int]
    archive: str  # its file name
    max_bytes: int  # upper limit of the unpacked size
    advice: str  # for users who have to get the archive themselves
    url: str = ""  # of the archive; empty if users download it themselves
    checksum: str = ""  # of the archive, algorithm:hexdigest; empty: not checked
    # The URL serves the head of a branch: another checksum is logged, not refused.
    may_change: bool = False
    version: str = ""  # with the variant; empty: as in the registry


class Location(NamedTuple):
    """The location of a dataset; with neither folder nor archive it is downloaded."""

    folder: Path | None
    archive: Path | None
    fingerprint: str  # changes when the recordings may have changed


def open_source(layout: Layout, config: DataConfig) -> Source:
    """Finds the dataset that ``layout`` describes.

    Raises:
      UserError: it is neither available nor downloadable.
    """
    entry = datasets.lookup(config.name)
    layout = dataclasses.replace(layout, version=layout.version or entry.version)
    location = _locate(layout, config)
    marks = [location.fingerprint, layout.version.replace(" ", "-").replace(",", "")]
    if config.allow_partial:
        marks.append("partial")
    if config.skip_bad_files:
        marks.append("skipped")
    return Source(
        name=config.name,
        version=layout.version,
        licence=entry.licence,
        fingerprint="-".join(marks),
        read=functools.partial(_read, layout, location, config),
    )


def _locate(layout: Layout, config: DataConfig) -> Location:
    """Finds the folder or archive near ``--data_dir``, or the archive in the cache."""

    def of_archive(archive: Path) -> Location:
        fingerprint = recordings.fingerprint_files([archive], archive.parent)
        return Location(None, archive, f"archive-{fingerprint}")

    if not config.data_dir:
        if layout.url:
            version = layout.checksum.rpartition(":")[2] or layout.version
            return Location(None, None, f"published-{version[:16]}")
        archive = datasets.cache_root(config) / "downloads" / layout.archive
        if archive.is_file():
            return of_archive(archive)
        raise UserError(
            f"{datasets.lookup(config.name).title} is not downloaded by this program: "
            f"{layout.advice}; then put {layout.archive} into {archive.parent}, "
            "or pass it or the unpacked folder with --data_dir"
        )
    path = Path(expanded(config.data_dir)).absolute()
    what = f"{layout.holds}, or the archive {layout.archive}"
    if path.is_file():
        if not archives.is_archive(path):
            raise UserError(f"--data_dir={path} is not an archive; it should be {what}")
        return of_archive(path)
    if not path.is_dir():
        raise UserError(f"--data_dir={path} is not a folder; it should hold {what}")
    if folder := _inside(path, layout.markers):
        if folder != path:
            _log.info("reading %s from %s", config.name, folder)
        return Location(folder, None, recordings.fingerprint_tree(folder))
    if archives.is_archive(path / layout.archive):
        return of_archive(path / layout.archive)
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
    for pattern in ("*", "*/*"):
        marked = [
            p
            for p in path.glob(pattern)
            if has_marker(p) and not tree.is_hidden_below(path, p)
        ]
        if marked:
            return marked[0] if len(marked) == 1 else None
    return None


def _read(layout: Layout, location: Location, config: DataConfig) -> Recordings:
    """Returns the index of a dataset; downloads and unpacks it if needed."""
    entry, cache = datasets.lookup(config.name), datasets.cache_root(config)
    licence = cache / "licences" / config.name
    if not licence.exists():  # shown the first time in this cache
        _log.info("%s: licence %s; %s", entry.title, entry.licence, entry.homepage)
        licence.parent.mkdir(parents=True, exist_ok=True)
        licence.write_text(f"{entry.licence}\n")
    folder = location.folder or _unpacked(layout, location, config)
    try:
        contents = layout.find(folder)
        present = _check(layout, contents, folder, config)
    except UserError as error:
        if location.folder:
            raise
        raise UserError(f"{error}; or delete {folder} to unpack it again") from error
    # In the order of the official parts, on which random draws depend.
    clips = sorted(contents.clips, key=_part_number)
    # A partial dataset may lack classes.
    classes = {clip.labels[0] for clip in clips}
    load_noise = functools.partial(_load_noise, contents.noise, config.skip_bad_files)
    left_out = tree.LeftOut()
    paths = (*(clip.path for clip in clips), *contents.noise)
    used = set(map(os.path.abspath, paths))
    for path in tree.sound_files(folder, left_out):
        if os.path.abspath(path) not in used:
            left_out.add("recording that is not part of this dataset", path)
    return recordings.index(
        clips,
        tuple(name for name in layout.class_names if name in classes),
        has_tags=False,
        is_int16=True,
        load_noise=load_noise if contents.noise else None,
        left_out=left_out.rows(),
        present=present,
    )


def _part_number(clip: Clip) -> int:
    return clip.fold or recordings.SPLITS.index(clip.split)


def _load_noise(noise: Sequence[Path], skip_bad: bool) -> list[recordings.Decoded]:
    decode = recordings.decoder([Clip(path, ()) for path in noise], is_int16=True)
    decoded, bad = [], []
    for i in range(len(noise)):
        try:
            decoded.append(decode(i))
        except audio.BadAudioError as error:
            bad.append(error)
    audio.report_bad(bad, skip_bad)
    return decoded


def _unpacked(layout: Layout, location: Location, config: DataConfig) -> Path:
    """Returns the dataset's folder in the cache; downloads and unpacks it if needed."""
    cache = datasets.cache_root(config)
    may_differ = config.allow_partial or layout.may_change
    name = f"{layout.archive}-{location.fingerprint}"
    if location.archive and may_differ:
        name += "-unverified"
    target = cache / "unpacked" / name
    with exclusive(cache / "locks" / layout.archive, "unpacking this dataset"):
        if not target.is_dir():
            archive = location.archive or _download(layout, cache / "downloads")
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
            f"it is not {config.name}, or files are missing from {target}: delete "
            "that folder to unpack it again"
        )
    return folder


def _download(layout: Layout, folder: Path) -> Path:
    checksum = "" if layout.may_change else layout.checksum
    try:
        archive = download.fetch(layout.url, folder / layout.archive, checksum)
    except UserError as error:
        raise UserError(f"{error}; or {layout.advice}") from error
    if layout.may_change and download.mismatch(archive, layout.checksum):
        _log.info(
            "%s has changed since its checksum was recorded; it is checked by its own "
            "checksums and the published counts",
            layout.url,
        )
    return archive


def _check(layout: Layout, contents: Contents, folder: Path, config: DataConfig) -> str:
    """Refuses clips whose counts are not as published, without ``allow_partial``.

    Returns how many of the published clips and classes there are; empty if all.
    """
    title = datasets.lookup(config.name).title
    if not contents.clips:
        raise UserError(
            f"{folder} holds no clip of {title}; it should hold {layout.holds}"
        )
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for clip in contents.clips:
        for class_name in ("", clip.labels[0]):
            for part in ("", clip.part):
                counts[class_name, part] += 1
    wrong = []
    if missing := contents.missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        names = ", ".join(missing[:5])
        words = counted(len(missing), "recording is", "recordings are")
        wrong.append(f"{words} missing, {names}{more}")
    published = contents.published or layout.published
    differ = [key for key in published if counts[key] != published[key]]
    for key in differ[:6]:
        where = " in ".join(filter(None, key)) or "all"
        wrong.append(f"{where}: {counts[key]} of {published[key]} clips")
    if len(differ) > 6:
        wrong.append(f"and {len(differ) - 6} more counts")
    if not wrong:
        return ""
    text = f"{folder} does not match {title} as published: {'; '.join(wrong)}"
    if not config.allow_partial:
        raise UserError(f"{text}; complete it, or pass --allow_partial to use it as is")
    _log.warning("%s; using it as is", text)
    of_class = [key for key in published if key[0]]
    clips = [sum(number[key] for key in of_class) for number in (counts, published)]
    names = {name for name, _ in of_class}
    present = sum(counts[name, ""] > 0 for name in names)
    classes = f" and {present} of {len(names)} classes" * (present < len(names))
    return f"{clips[0]:,} of {clips[1]:,} published clips{classes}"


def first_existing(folder: Path, names: Sequence[str]) -> Path:
    """Returns the first of some paths below ``folder`` that exists, or else the first.

    Datasets and their mirrors have the same files in different places.
    """
    paths = [folder / name for name in names]
    return next((path for path in paths if path.exists()), paths[0])


def listed(
    clips: list[Clip], table: Path, class_names: Sequence[str], folds: int
) -> Contents:
    """Separates the clips of a table whose files exist from those that are missing.

    Unknown classes and folds, and clips that are listed twice, are refused.
    """
    names = set()
    for clip in clips:
        [class_name] = clip.labels
        if class_name not in class_names:
            raise UserError(
                f"{table}: {clip.name} has the unknown class {class_name!r}"
            )
        if not 1 <= clip.fold <= folds:
            raise UserError(f"{table}: {clip.name} has the unknown {clip.part!r}")
        if clip.name in names or Path(clip.name).name != clip.name:
            raise UserError(
                f"{table}: {clip.name} is listed twice or is not a file name"
            )
        names.add(clip.name)
    # One listing per folder: 100,000 calls of stat take seconds.
    files = {folder: sounds(folder) for folder in {clip.path.parent for clip in clips}}
    found, missing = [], []
    for clip in clips:
        if path := files[clip.path.parent].get(clip.path.stem):
            found.append(clip._replace(path=path))
        else:
            missing.append(clip.name)
    return Contents(found, missing)


def sounds(folder: Path) -> dict[str, Path]:
    """Returns the recordings in a folder by name without suffix, in the order of names.

    Copies of a dataset may be compressed, under the published names; WAV precedes.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        suffix = path.suffix.lower()
        if suffix == ".wav" or (suffix in audio.SUFFIXES and path.stem not in found):
            found[path.stem] = path
    return found
