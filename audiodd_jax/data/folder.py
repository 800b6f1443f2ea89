"""Labelled sound files of a user: folders of classes, a CSV of paths, or Parquet.

Folders in the layouts of FSD50K and of HEAR's tasks are recognised by their tables.

A table has tags if the label of any row has a semicolon: ``dog;siren``. In such a table
``dog`` and ``dog;`` are the same tag, and an empty label is a clip without tags. In any
other table an empty label is an error, since it is more likely to be a mistake.
"""

import logging
import os
from pathlib import Path
from typing import Any

from audiodd_jax.config import DataConfig
from audiodd_jax.data import datasets, identical, parquet, tables, tagged_layouts, tree
from audiodd_jax.data.clips import Clip, index, printable
from audiodd_jax.data.recordings import Recordings, Source, fingerprint_files
from audiodd_jax.data.tagged_layouts import Listing
from audiodd_jax.errors import UserError

_log = logging.getLogger(__name__)


def open_source(config: DataConfig) -> Source:
    """Finds the recordings of ``config.data_dir``: a folder, a CSV, or Parquet.

    Raises:
      UserError: no recordings, or a table that cannot be understood.
    """
    root, left_out = Path(config.data_dir).expanduser(), tree.LeftOut()
    if parquet.files(root):
        root = parquet.unpacked(root, datasets.cache_root(config))
    listing = _listing(root, left_out)
    clips = _checked(listing.clips, root)
    if not any(clip.path.is_file() for clip in clips):
        raise UserError(
            f"{root}: none of the {len(clips)} listed files exists, such as "
            f"{clips[0].path}; paths are relative to the table's folder"
        )
    files = [*(_absolute(clip.path) for clip in clips), *listing.tables]
    # A table may name files anywhere.
    base = Path("/") if listing.tables else root
    entry = datasets.lookup("folder")
    return Source(
        name="folder",
        version=entry.version,
        licence=entry.licence,
        fingerprint=fingerprint_files(files, base),
        read=lambda: _read(clips, root, left_out, listing.has_tags),
        has_tags=listing.has_tags,
    )


def _absolute(path: Path) -> Path:
    return path.resolve() if path.exists() else path.absolute()


def _listing(root: Path, left_out: tree.LeftOut) -> Listing:
    """Lists the clips of a folder or table, as they are given."""
    if root.is_dir():
        if listing := tagged_layouts.read(root, left_out):
            return listing
        marks = {
            table if (table := folder / tree.METADATA).is_file() else folder: mark
            for folder, mark in tree.split_folders(root, left_out).items()
        }
    elif root.is_file():
        marks = {root: {}}
    else:
        raise UserError(
            f"--data_dir={root} is neither a folder nor a CSV; give a folder of "
            "class_name/*.wav, or a CSV with the columns path and label"
        )
    rows = {
        path: tables.read(path, ("path", "label"), ("label",), has_aliases=True)
        for path in marks
        if path.is_file()
    }
    has_tags = any(
        tables.TAG_SEPARATOR in row["label"] for table in rows.values() for row in table
    )
    clips = []
    for path, mark in marks.items():
        if path in rows:
            clips += [_clip(row, has_tags, mark) for row in rows[path]]
        else:
            clips += tree.class_folders(path, mark, left_out)
    return Listing(clips, list(rows), has_tags)


def _clip(row: tables.Row, has_tags: bool, mark: dict[str, Any]) -> Clip:
    """The clip of a row; ``mark`` is the split or fold of the table's folder."""
    text = row["path"]
    path = row.table.parent / Path(text).expanduser()
    if "\\" in text and not path.exists():
        path = row.table.parent / text.replace("\\", "/")
    clip = Clip(
        path=path,
        labels=row.labels(has_tags),
        split=row.split,
        fold=row.fold,
        group=row["group"],
    )
    return clip._replace(**mark)


def _checked(clips: list[Clip], root: Path) -> list[Clip]:
    """Removes repeated clips, counts folds from 1, and refuses contradictions."""
    clips = _without_repeats(clips, root)
    num_classes = len({label for clip in clips for label in clip.labels})
    if num_classes < 2:
        raise UserError(
            f"{root} holds {num_classes} classes of sounds; at least two are needed, "
            "as folders class_name/*.wav or labels of a CSV"
        )
    folds = [clip.fold for clip in clips if clip.fold is not None]
    if folds and len(folds) < len(clips):
        raise UserError(f"{root}: {len(clips) - len(folds)} rows lack their fold")
    if not folds or min(folds) > 0:
        return clips
    last = max(folds)
    _log.info("folds 0 to %d of %s are numbered 1 to %d", last, root, last + 1)
    return [clip._replace(fold=clip.fold + 1) for clip in clips]


def _without_repeats(clips: list[Clip], root: Path) -> list[Clip]:
    """Keeps each file once; refuses a file with two labels, splits, folds or groups."""
    by_path: dict[str, Clip] = {}
    for clip in clips:
        first = by_path.setdefault(os.path.normpath(clip.path), clip)
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
        _log.warning("%s: %d rows repeat a file and are read once", root, repeats)
    return list(by_path.values())


def _read(
    clips: list[Clip], root: Path, left_out: tree.LeftOut, has_tags: bool
) -> Recordings:
    base = root if root.is_dir() else root.parent
    class_names = tuple(sorted({label for clip in clips for label in clip.labels}))
    clips = identical.grouped([_named(clip, base) for clip in clips])
    return index(clips, class_names, has_tags, left_out=left_out.rows())


def _named(clip: Clip, base: Path) -> Clip:
    is_below = clip.path.is_relative_to(base)
    path = clip.path.relative_to(base) if is_below else clip.path
    return clip._replace(name=printable(str(path)))
