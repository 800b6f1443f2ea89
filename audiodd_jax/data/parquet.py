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
from audiodd_jax.data.tables import columns_named, label_cell, split_name
from audiodd_jax.data.tree import METADATA, is_hidden_below
from audiodd_jax.errors import UserError, named, writable
from audiodd_jax.runtime import files as files_lib
from audiodd_jax.runtime import progress
from audiodd_jax.runtime.files import exclusive

_log = logging.getLogger(__name__)

SUFFIX = ".parquet"
_BEGINNINGS = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"FORM": ".aiff"}
# Rows in memory at once.
_ROWS = 64


def files(root: Path) -> list[Path]:
    """The Parquet files of a folder and two levels below it, or the file itself."""
    if root.is_file():
        return [root] if root.suffix.lower() == SUFFIX else []
    paths = [p for depth in ("", "*/", "*/*/") for p in root.glob(f"{depth}*{SUFFIX}")]
    return sorted(path for path in paths if not is_hidden_below(root, path))


def unpacked(root: Path, cache: Path) -> Path:
    """Returns a folder in the cache with the recordings of a file or folder.

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


class _NoTableError(Exception):
    """A Parquet file that is not a table of labelled recordings, with the reason."""


def _unpack(tables: list[Path], base: Path, folder: Path) -> None:
    """Writes all recordings of some tables, and ``metadata.csv``."""
    import pyarrow as pa  # slow to import, and only Parquet needs it
    import pyarrow.parquet as pq

    def may_have_audio(table: Path) -> bool:
        try:
            return "audio" in pq.read_schema(table).names
        except pa.ArrowException:
            return True  # reading it names the error

    usable = [table for table in tables if may_have_audio(table)] or tables
    if left_out := len(tables) - len(usable):
        _log.info("%d tables without audio are left out", left_out)
    (folder / "clips").mkdir()
    with (folder / METADATA).open("w", newline="", encoding="utf-8") as text:
        writer = csv.writer(text)
        writer.writerow(["file_name", "label", "split", "group"])
        for number, table in enumerate(usable):
            try:
                with pq.ParquetFile(table) as opened:
                    split = _split(table.relative_to(base))
                    for i, (content, suffix, label, group) in enumerate(_rows(opened)):
                        name = f"clips/{number:03d}-{i:07d}{suffix}"
                        (folder / name).write_bytes(content)
                        writer.writerow([name, label, split, group])
            except (pa.ArrowException, _NoTableError) as error:
                reason = str(error).splitlines()[0]
                raise UserError(f"{table} cannot be used: {reason}") from error


def _rows(table: Any) -> Iterator[tuple[bytes, str, str, str]]:
    """Yields the bytes, suffix, label and group of each row that has a class."""
    columns = table.schema_arrow.names
    names = ("label", "labels", *columns_named("label", columns))
    column = next((name for name in names if name in columns), None)
    if "audio" not in columns or column is None:
        raise _NoTableError(
            "it needs the columns audio and label, and has " + ", ".join(columns)
        )
    groups = columns_named("group", columns)[:1]
    class_names = _class_names(table.schema_arrow.metadata or {}, column)
    wanted = ["audio", column, *groups]
    total = table.metadata.num_rows
    with progress.bar(total, desc="unpacking", unit="clip") as bar:
        for batch in table.iter_batches(_ROWS, columns=wanted):
            for row in batch.to_pylist():
                bar.update()
                label, cell = row[column], row["audio"]
                # The Hub's test splits can lack classes: null, or -1.
                if label is None or label == -1:
                    continue
                if isinstance(cell, bytes):
                    cell = {"bytes": cell}
                content = cell.get("bytes") if isinstance(cell, dict) else None
                if not isinstance(content, bytes):
                    raise _NoTableError("a row's audio holds no bytes of a sound file")
                suffix = Path(cell.get("path") or "").suffix.lower()
                if suffix not in audio.SUFFIXES:
                    suffix = _BEGINNINGS.get(content[:4], ".mp3")
                group = str(row[groups[0]] or "") if groups else ""
                yield content, suffix, label_cell(label, class_names), group


def _class_names(metadata: dict[bytes, bytes], column: str) -> list[str]:
    """The names of a ``ClassLabel`` in a schema that the Hub's library wrote."""
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][column]
        feature = feature.get("feature") or feature  # of a list
        return list(feature.get("names") or [])
    except (KeyError, ValueError, TypeError, AttributeError):
        return []


def _split(path: Path) -> str:
    """The split in a file's name (``train-00000-of-00001``), or in its folders'."""
    for part in (path.stem, *reversed(path.parent.parts)):
        if name := split_name(re.match(r"[A-Za-z]*", part)[0]):
            return name
    return ""
