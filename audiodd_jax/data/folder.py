"""Labelled sound files of a user: folders of classes, tables of paths, or Parquet.

Folders in the layouts of FSD50K and of HEAR's tasks are recognised by their tables.
What the cells of tables mean is defined in ``data/tables.py``.
"""

import collections
import hashlib
import itertools
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from audiodd_jax.config import DataConfig
from audiodd_jax.config.user_paths import expanded
from audiodd_jax.data import (
    audio,
    datasets,
    folder_tables,
    listed_files,
    parquet,
    recordings,
    segments,
    tables,
    tagged_layouts,
    tree,
)
from audiodd_jax.data.labels import class_order, labels_of, warn_of_similar
from audiodd_jax.data.names import printable
from audiodd_jax.data.recordings import Clip, Recordings, Source
from audiodd_jax.data.tables import Row
from audiodd_jax.data.tagged_layouts import Listing
from audiodd_jax.errors import UserError, counted
from audiodd_jax.runtime import mirror

_log = logging.getLogger(__name__)


def open_source(config: DataConfig) -> Source:
    """Finds the recordings of ``config.data_dir``: a folder, a CSV, or Parquet.

    Raises:
      UserError: no recordings, or a table that cannot be understood.
    """
    root, left_out = Path(expanded(config.data_dir)), tree.LeftOut()
    if root.name == tagged_layouts.TRUTH and root.is_dir():
        root = root.absolute().parent
    listing = _listing(root, left_out, datasets.cache_root(config))
    listing = _of_segments(listing, config)
    clips = _checked(listing.clips, root)
    class_names = listing.class_names or tuple(
        sorted({label for clip in clips for label in clip.labels})
    )
    if config.background and segments.BACKGROUND not in class_names:
        class_names = (*class_names, segments.BACKGROUND)
    warn_of_similar(class_names)
    if len(class_names) < 2 - config.one_class:
        raise UserError(
            f"{root} holds {counted(len(class_names), 'class', 'classes')} of sounds; "
            "at least two are needed, as folders class_name/*.wav or labels of a CSV"
        )
    if not any(clip.path.is_file() for clip in clips):
        raise UserError(
            f"{root}: none of {counted(len(clips), 'listed file')} exists, such as "
            f"{clips[0].path}; paths are relative to the table's folder"
        )

    def read() -> Recordings:
        found = grouped(clips)
        if config.background:
            found += segments.background(found, config.background)
        return recordings.index(
            found, class_names, listing.has_tags, left_out=left_out.rows()
        )

    paths = dict.fromkeys(clip.path for clip in clips)
    files = [path.resolve() if path.exists() else path.absolute() for path in paths]
    # A table may name files anywhere.
    base = Path("/") if listing.tables else root
    entry = datasets.lookup("folder")
    marks = [recordings.fingerprint_files([*files, *listing.tables], base)]
    told = repr([(*clip[1:6], clip.span) for clip in clips]).encode(errors="replace")
    marks += [hashlib.sha256(told).hexdigest()[:16]]
    marks += [config.tags] if config.tags else []
    marks += [f"background{config.background!r}"] if config.background else []
    return Source(
        name="folder",
        version=entry.version,
        licence=entry.licence,
        fingerprint="-".join(marks),
        read=read,
        has_tags=listing.has_tags,
    )


def labelled_clips(place: str, config: DataConfig, has_tags: bool) -> list[Clip]:
    """Lists the labelled recordings in a folder or table, under the folder's name.

    Raises:
      UserError: no recordings, or tags where classes are expected.
    """
    root = Path(expanded(place))
    listing = _listing(root, tree.LeftOut(), datasets.cache_root(config))
    if listing.has_tags and not has_tags:
        raise UserError(f"{root} has tags: pass --tags")
    clips = _checked(listing.clips, root)
    return [clip._replace(name=f"{root.stem}/{clip.name}", fold=None) for clip in clips]


def _of_segments(listing: Listing, config: DataConfig) -> Listing:
    """Follows the settings of segments, which need some."""
    if not any(clip.seconds for clip in listing.clips):
        if config.tags or config.background:
            raise UserError(
                "--config.data.tags and --config.data.background need segments: a "
                "table with columns start and end, or label files next to recordings"
            )
        return listing
    if listing.has_tags and not config.tags:
        return listing  # rows of tags are complete
    clips = segments.with_overlaps(listing.clips, bool(config.tags))
    return listing._replace(clips=clips, has_tags=bool(config.tags))


def _listing(root: Path, left_out: tree.LeftOut, cache: Path) -> Listing:
    """Lists the clips of a folder or table, as they are given."""
    listed, others = parquet.find(root)
    for table in others:
        left_out.add("Parquet table without labelled recordings", table)
    if listed:
        found = parquet.unpacked(root, listed, cache)
        if found.unlabelled:
            left_out.add("row without a class", listed[0], found.unlabelled)
            words = counted(found.unlabelled, "row has", "rows have")
            _log.warning("%s: %s no class and will not be used", root, words)
        if any(row.sound for row in found.rows):
            _leave_out_beside(root, listed[0], left_out)
        return _of_rows(found.rows, listed, root, found.class_names)
    if root.is_dir():
        if listing := tagged_layouts.read(root, left_out):
            return listing
        root = tree.inner_folder(root)
        if rows := folder_tables.read(root, left_out):
            read = list(dict.fromkeys(row.table for row in rows))
            listing = _of_rows(rows, read, root)
            paths = {Path(os.path.normpath(clip.path)) for clip in listing.clips}
            tree.count_unlisted(root, paths, left_out)
            return listing
        folders = tree.split_folders(root, left_out)
    elif root.is_file():
        folder_tables.warn_of_others(root)
        folders = {root: {}}
    else:
        raise UserError(
            f"--data_dir={root.absolute()} is neither a folder nor a CSV; give a "
            "folder of class_name/*.wav, or a CSV with the columns path and label"
        )
    read, files = {}, []
    for folder, place in folders.items():
        if file := tree.metadata(folder):
            read[folder] = tables.read_any(file, place)
            files.append(file)
        elif rows := segments.next_to_sounds(folder, place, left_out):
            read[folder] = rows
            files += dict.fromkeys(row.table for row in rows)
    listing = _of_rows(list(itertools.chain(*read.values())), files, root)
    of_tables, clips = iter(listing.clips), []
    for folder, place in folders.items():
        if folder in read:
            clips += itertools.islice(of_tables, len(read[folder]))
        else:
            clips += tree.class_folders(folder, place, left_out)
    if not clips and others:
        raise UserError(
            f"{others[0]} cannot be used: it needs the columns audio and label"
        )
    names = listing.class_names if len(read) == len(folders) else ()
    return listing._replace(clips=clips, class_names=names)


def _leave_out_beside(root: Path, table: Path, left_out: tree.LeftOut) -> None:
    """Counts recordings next to tables with recordings; refuses class folders."""
    files = tree.sound_files(root, tree.LeftOut()) if root.is_dir() else []
    if (
        len({file.relative_to(root).parts[0] for file in files if file.parent != root})
        > 1
    ):
        raise UserError(
            f"{root} holds recordings in {table.name} and in class folders, such as "
            f"{files[0]}: pass one of them as --data_dir"
        )
    if files:
        left_out.add("recording next to Parquet tables", files[0], len(files))


def _of_rows(
    rows: list[Row], read: list[Path], root: Path, class_names: Sequence[str] = ()
) -> Listing:
    """Lists the clips of the rows of tables."""
    labels, has_tags = labels_of(rows)
    rows, paths = listed_files.located(rows, root)
    tables.check_places(rows)
    listed = zip(rows, paths, labels, strict=True)
    clips = [row.clip(path, names) for row, path, names in listed]
    order = class_order(itertools.chain(*labels), rows, class_names)
    return Listing(clips, read, has_tags, order)


def _checked(clips: list[Clip], root: Path) -> list[Clip]:
    """Keeps each clip once, counts folds from 1, and refuses contradictions."""
    by_path: dict[tuple[str, float, float], Clip] = {}
    for clip in clips:
        key = (os.path.normpath(clip.path), clip.start, clip.seconds)
        first = by_path.setdefault(key, clip)
        for name in ("labels", "split", "fold", "group"):
            value, again = getattr(first, name), getattr(clip, name)
            if value == again:
                continue
            if name == "labels":
                name = "label"
                value, again = map(tables.TAG_SEPARATOR.join, (value, again))
            raise UserError(
                f"{root}: {clip.path} is listed with the {name} {value} and again "
                f"with the {name} {again}"
            )
    if repeats := len(clips) - len(by_path):
        words = counted(
            repeats, "row repeats a file and is", "rows repeat a file and are"
        )
        _log.warning("%s: %s read once", root, words)
    folds = tables.fold_numbers([clip.fold for clip in by_path.values()], root)
    base = root if root.is_dir() else root.parent
    result = []
    for clip, fold in zip(by_path.values(), folds, strict=True):
        path = clip.path
        if path.is_relative_to(base):
            path = path.relative_to(base)
        name = clip.name or printable(str(path))
        clip = clip._replace(name=name, fold=fold)
        if clip.seconds:
            # Random splits do not divide a recording.
            clip = segments.named(clip._replace(group=clip.group or name), name)
        result.append(clip)
    return result


def grouped(clips: Sequence[Clip]) -> list[Clip]:
    """Merges the groups of clips so that identical files are in one group."""
    groups = [clip.group for clip in clips]
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while group in parent:
            group = parent[group]
        return group

    for same in _identical([clip.path for clip in clips]):
        spans = {clips[i].span: clips[i].labels for i in same}
        if any(clips[i].labels != spans[clips[i].span] for i in same):
            _log.warning(
                "%d recordings have the same content and different labels: %s",
                len(same),
                ", ".join(clips[i].name for i in same[:4]),
            )
        first = f"{recordings.IDENTICAL}{clips[same[0]].name}"
        for i in same:
            group, target = root(groups[i] or first), root(first)
            if group != target:
                parent[group] = target
            groups[i] = groups[i] or first
    return [
        clip._replace(group=root(group)) if group else clip
        for clip, group in zip(clips, groups, strict=True)
    ]


def _identical(paths: Sequence[Path]) -> list[list[int]]:
    """Returns the indices of different files with identical content, by content."""
    rows, by_size = collections.defaultdict(list), collections.defaultdict(list)
    for i, path in enumerate(paths):
        rows[path].append(i)  # a file's segments
    for path in rows:
        if path.is_file():
            by_size[path.stat().st_size].append(path)
    candidates = [path for same in by_size.values() if len(same) > 1 for path in same]

    def digest(path: Path) -> bytes:
        try:
            mirror.read(path)
            with path.open("rb") as file:
                return hashlib.file_digest(file, "blake2b").digest()
        except (OSError, ValueError):
            return b""  # decoding names the error

    with ThreadPoolExecutor(audio.num_threads()) as pool:
        digests = list(pool.map(digest, candidates))
    by_content = collections.defaultdict(list)
    for path, content in zip(candidates, digests, strict=True):
        if content:
            by_content[content].append(rows[path])
    groups = [same for same in by_content.values() if len(same) > 1]
    return [list(itertools.chain(*same)) for same in groups]
