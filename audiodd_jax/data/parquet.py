"""Parquet files of the Hugging Face Hub's audio data sets, as they are downloaded.

Each row has a recording (``audio``, with the bytes of a file) and its class
(``label``, a name or a number of the class names in the file's schema), or a list of
them, which are its tags. The recordings are unpacked to the cache once, beside a
``metadata.csv``, as an audio folder.
"""

import csv
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audiodd_jax.data import audio
from audiodd_jax.data.files_found import is_hidden
from audiodd_jax.data.recordings import fingerprint_files
from audiodd_jax.data.tree import METADATA, SPLIT_NAMES
from audiodd_jax.errors import UserError, named, writable
from audiodd_jax.runtime import files as files_lib
from audiodd_jax.runtime import progress
from audiodd_jax.runtime.locks import exclusive

_log = logging.getLogger(__name__)

SUFFIX = ".parquet"
_LABELS = ("label", "labels", "class", "category", "class_name")
_GROUPS = ("group", "speaker", "speaker_id")
_BEGINNINGS = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"FORM": ".aiff"}
# Rows in memory at once.
_ROWS = 64


def files(place: Path) -> list[Path]:
    """The Parquet files of a folder and two levels below it, or the file itself."""
    if place.is_file():
        return [place] if place.suffix.lower() == SUFFIX else []
    found = [p for depth in ("", "*/", "*/*/") for p in place.glob(f"{depth}*{SUFFIX}")]
    visible = lambda path: not any(map(is_hidden, path.relative_to(place).parts))
    return sorted(filter(visible, found))


def unpacked(place: Path, cache_dir: Path) -> Path:
    """A folder in the cache with the recordings and their table.

    Args:
      place: a Parquet file, or a folder with some.
      cache_dir: of the cache.

    Raises:
      UserError: a damaged file, or one without recordings or classes.
    """
    tables = files(place)
    root = place if place.is_dir() else place.parent
    name = re.sub(r"[^\w.-]", "_", place.stem)[:60]
    entry = cache_dir / "parquet" / f"{name}-{fingerprint_files(tables, root)}"
    if entry.is_dir():
        return entry
    advice = "set AUDIODD_CACHE, or pass --cache_dir, to a folder that can be"
    with (
        writable(cache_dir, "the cache", advice),
        exclusive(cache_dir / "locks" / entry.name, "unpacking these recordings"),
        named(entry),
    ):
        if not entry.is_dir():
            with files_lib.atomic_folder(entry) as scratch:
                _unpack(tables, root, scratch)
    return entry


def _unpack(tables: list[Path], root: Path, folder: Path) -> None:
    """Writes all recordings of some tables, and ``metadata.csv``."""
    import pyarrow as pa  # takes a moment, and only Parquet needs it
    import pyarrow.parquet as pq

    tables = _with_audio(tables)
    (folder / "clips").mkdir()
    with (folder / METADATA).open("w", newline="", encoding="utf-8") as text:
        writer = csv.writer(text)
        writer.writerow(["file_name", "label", "split", "group"])
        for number, table in enumerate(tables):
            try:
                with pq.ParquetFile(table) as opened:
                    split = _split_of(table.relative_to(root))
                    for i, (content, path, label, group) in enumerate(_rows(opened)):
                        ending = _ending(content, path)
                        name = f"clips/{number:03d}-{i:07d}{ending}"
                        (folder / name).write_bytes(content)
                        writer.writerow([name, label, split, group])
            except (pa.ArrowException, _NoTableError) as error:
                reason = str(error).splitlines()[0]
                raise UserError(f"{table} cannot be used: {reason}") from error


def _with_audio(tables: list[Path]) -> list[Path]:
    """The tables with recordings, if there are any; others are told."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def has_audio(table: Path) -> bool:
        try:
            return "audio" in pq.read_schema(table).names
        except pa.ArrowException:
            return True  # its reader tells what is wrong

    found = [table for table in tables if has_audio(table)]
    if found and len(found) < len(tables):
        _log.info("%d tables without audio are left out", len(tables) - len(found))
    return found or tables


class _NoTableError(Exception):
    """A Parquet file that is no table of labelled recordings; says why."""


def _rows(table: Any) -> Iterator[tuple[bytes, str, str, str]]:
    """Bytes, path, class and group of each row that has a class."""
    columns = table.schema_arrow.names
    pick = lambda known: next((name for name in known if name in columns), None)
    label, group = pick(_LABELS), pick(_GROUPS)
    if "audio" not in columns or label is None:
        raise _NoTableError(
            "it needs the columns audio and label, and has " + ", ".join(columns)
        )
    names = _class_names(table.schema_arrow.metadata or {}, label)
    wanted = [name for name in ("audio", label, group) if name]
    total = table.metadata.num_rows
    with progress.ticking(progress.bar(total, desc="unpacking", unit="clip")) as bar:
        for batch in table.iter_batches(_ROWS, columns=wanted):
            for row in batch.to_pylist():
                bar.update()
                value = row[label]
                # The Hub's test splits can lack classes: null, or -1.
                if value is None or value == -1:
                    continue
                text = _label_text(value, names)
                yield (*_content(row["audio"]), text, str(row.get(group) or ""))


def _label_text(value: Any, names: list[str]) -> str:
    """A label for the table; a semicolon after each tag tells that they are tags."""
    if isinstance(value, list):
        return "".join(f"{_label_text(tag, names)};" for tag in value) or ";"
    return names[value] if names and isinstance(value, int) else str(value)


def _content(cell: Any) -> tuple[bytes, str]:
    """The bytes of a cell's recording, and its file name if there is one."""
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
        return cell["bytes"], cell.get("path") or ""
    if isinstance(cell, bytes):
        return cell, ""
    raise _NoTableError("a row's audio holds no bytes of a sound file")


def _class_names(metadata: dict[bytes, bytes], column: str) -> list[str]:
    """The names of a ``ClassLabel`` in a schema that the Hub's library wrote."""
    try:
        found = json.loads(metadata[b"huggingface"])["info"]["features"][column]
        found = found.get("feature") or found  # of a list
        return list(found.get("names") or [])
    except (KeyError, ValueError, TypeError, AttributeError):
        return []


def _ending(content: bytes, path: str) -> str:
    """The suffix of a recording's format: of its name, or by how it begins."""
    suffix = Path(path).suffix.lower()
    if suffix in audio.SUFFIXES:
        return suffix
    return _BEGINNINGS.get(content[:4], ".mp3")


def _split_of(path: Path) -> str:
    """The split in a file's name (``train-00000-of-00001``), or in its folders'."""
    for part in (path.stem, *reversed(path.parent.parts)):
        word = re.match(r"[a-z]*", part.lower())[0]
        if word in SPLIT_NAMES:
            return SPLIT_NAMES[word]
    return ""
