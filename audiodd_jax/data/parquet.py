"""Parquet files of audio datasets, as they are downloaded from the Hugging Face Hub.

Each row has a recording (``audio``, with the bytes of a file) and its class
(``label``, a name or a number of the class names in the file's schema), or a list of
them, which are its tags. The recordings are unpacked to the cache once, next to a
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
from audiodd_jax.data.recordings import fingerprint_files
from audiodd_jax.data.tables import ALIASES, TAG_SEPARATOR, columns_named, split_name
from audiodd_jax.data.tree import METADATA, is_hidden
from audiodd_jax.errors import UserError, named, writable
from audiodd_jax.runtime import files as files_lib
from audiodd_jax.runtime import progress
from audiodd_jax.runtime.locks import exclusive

_log = logging.getLogger(__name__)

SUFFIX = ".parquet"
_LABELS = ("label", "labels", *ALIASES["label"])
_BEGINNINGS = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"FORM": ".aiff"}
# Rows in memory at once.
_ROWS = 64


def files(root: Path) -> list[Path]:
    """The Parquet files of a folder and two levels below it, or the file itself."""
    if root.is_file():
        return [root] if root.suffix.lower() == SUFFIX else []
    paths = [p for depth in ("", "*/", "*/*/") for p in root.glob(f"{depth}*{SUFFIX}")]
    return sorted(
        path for path in paths if not any(map(is_hidden, path.relative_to(root).parts))
    )


def unpacked(root: Path, cache: Path) -> Path:
    """Returns a folder in the cache with the recordings and their table.

    ``root`` is a Parquet file, or a folder with some.

    Raises:
      UserError: a damaged file, or one without recordings or classes.
    """
    tables = files(root)
    base = root if root.is_dir() else root.parent
    name = re.sub(r"[^\w.-]", "_", root.stem)[:60]
    entry = cache / "parquet" / f"{name}-{fingerprint_files(tables, base)}"
    if entry.is_dir():
        return entry
    advice = "set AUDIODD_CACHE, or pass --cache_dir, to a folder that can be"
    with (
        writable(cache, "the cache", advice),
        exclusive(cache / "locks" / entry.name, "unpacking these recordings"),
        named(entry),
    ):
        if not entry.is_dir():
            with files_lib.atomic_folder(entry) as scratch:
                _unpack(tables, base, scratch)
    return entry


def _unpack(tables: list[Path], base: Path, folder: Path) -> None:
    """Writes all recordings of some tables, and ``metadata.csv``."""
    import pyarrow as pa  # slow to import, and only Parquet needs it
    import pyarrow.parquet as pq

    tables = _with_audio(tables)
    (folder / "clips").mkdir()
    with (folder / METADATA).open("w", newline="", encoding="utf-8") as text:
        writer = csv.writer(text)
        writer.writerow(["file_name", "label", "split", "group"])
        for number, table in enumerate(tables):
            try:
                with pq.ParquetFile(table) as opened:
                    split = _split(table.relative_to(base))
                    for i, (content, path, label, group) in enumerate(_rows(opened)):
                        name = f"clips/{number:03d}-{i:07d}{_suffix(content, path)}"
                        (folder / name).write_bytes(content)
                        writer.writerow([name, label, split, group])
            except (pa.ArrowException, _NoTableError) as error:
                reason = str(error).splitlines()[0]
                raise UserError(f"{table} cannot be used: {reason}") from error


def _with_audio(tables: list[Path]) -> list[Path]:
    """The tables with recordings, if any; others are logged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def has_audio(table: Path) -> bool:
        try:
            return "audio" in pq.read_schema(table).names
        except pa.ArrowException:
            return True  # reading it names the error

    usable = [table for table in tables if has_audio(table)]
    if usable and len(usable) < len(tables):
        _log.info("%d tables without audio are left out", len(tables) - len(usable))
    return usable or tables


class _NoTableError(Exception):
    """A Parquet file that is not a table of labelled recordings, with the reason."""


def _rows(table: Any) -> Iterator[tuple[bytes, str, str, str]]:
    """Yields the bytes, path, class and group of each row that has a class."""
    columns = table.schema_arrow.names
    label = next((name for name in _LABELS if name in columns), None)
    if "audio" not in columns or label is None:
        raise _NoTableError(
            "it needs the columns audio and label, and has " + ", ".join(columns)
        )
    groups = columns_named("group", columns)[:1]
    class_names = _class_names(table.schema_arrow.metadata or {}, label)
    wanted = ["audio", label, *groups]
    total = table.metadata.num_rows
    with progress.bar(total, desc="unpacking", unit="clip") as bar:
        for batch in table.iter_batches(_ROWS, columns=wanted):
            for row in batch.to_pylist():
                bar.update()
                value = row[label]
                # The Hub's test splits can lack classes: null, or -1.
                if value is None or value == -1:
                    continue
                group = str(row[groups[0]] or "") if groups else ""
                yield (*_content(row["audio"]), _label(value, class_names), group)


def _label(value: Any, class_names: list[str]) -> str:
    """A label for the table; a semicolon after each tag marks them as tags."""
    if isinstance(value, list):
        tags = [f"{_label(tag, class_names)}{TAG_SEPARATOR}" for tag in value]
        return "".join(tags) or TAG_SEPARATOR
    return class_names[value] if class_names and isinstance(value, int) else str(value)


def _content(cell: Any) -> tuple[bytes, str]:
    """The bytes of a cell's recording, and its file name or an empty string."""
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
        return cell["bytes"], cell.get("path") or ""
    if isinstance(cell, bytes):
        return cell, ""
    raise _NoTableError("a row's audio holds no bytes of a sound file")


def _class_names(metadata: dict[bytes, bytes], column: str) -> list[str]:
    """The names of a ``ClassLabel`` in a schema that the Hub's library wrote."""
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][column]
        feature = feature.get("feature") or feature  # of a list
        return list(feature.get("names") or [])
    except (KeyError, ValueError, TypeError, AttributeError):
        return []


def _suffix(content: bytes, path: str) -> str:
    """The suffix of a recording's format, from its name or its first bytes."""
    suffix = Path(path).suffix.lower()
    if suffix in audio.SUFFIXES:
        return suffix
    return _BEGINNINGS.get(content[:4], ".mp3")


def _split(path: Path) -> str:
    """The split in a file's name (``train-00000-of-00001``), or in its folders'."""
    for part in (path.stem, *reversed(path.parent.parts)):
        if name := split_name(re.match(r"[A-Za-z]*", part)[0]):
            return name
    return ""
