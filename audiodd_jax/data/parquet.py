"""Parquet files of audio datasets, as they are downloaded from the Hugging Face Hub.

Each row has a recording (``audio``, with the bytes of a file, or its path) and its
class (``label``, a name or a number of the class names in the file's schema), or a list
of them, which are its tags. Other columns are those of all tables. The recordings are
unpacked to the cache once, next to a ``rows.json``.
"""

import collections
import itertools
import json
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from audiodd_jax.data import audio, hub_card
from audiodd_jax.data.columns import ALIASES, columns_of, has_recordings
from audiodd_jax.data.names import Place, development_is_training, part_in, plain
from audiodd_jax.data.recordings import fingerprint_files
from audiodd_jax.data.tables import Row
from audiodd_jax.data.tree import is_hidden_below
from audiodd_jax.errors import UserError, named, writable
from audiodd_jax.runtime import files as files_lib
from audiodd_jax.runtime import progress
from audiodd_jax.runtime.files import exclusive

_log = logging.getLogger(__name__)

SUFFIX = ".parquet"
_BEGINNINGS = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"FORM": ".aiff"}
# Levels of folders with tables.
_DEPTH = 5
# Rows in memory at once.
_ROWS = 64
_TIMES = ("start", "end", "duration")
# Of the cache. Raise it whenever it holds something else.
_FORMAT = 3


class Unpacked(NamedTuple):
    """The rows of some tables."""

    rows: list[Row]
    class_names: list[str]  # in the order of the schemas
    unlabelled: int  # rows without a class, which are left out


def find(root: Path) -> tuple[list[Path], list[Path]]:
    """Returns the tables of labelled recordings in a file or folder, and the others.

    A folder's tables are in it or up to four levels below. A table without a column
    ``audio`` lists recordings if it is called ``metadata.parquet``.
    """
    import pyarrow as pa  # slow to import, and only Parquet needs it
    import pyarrow.parquet as pq

    if root.is_file():
        return ([root] if root.suffix.lower() == SUFFIX else []), []
    paths = [
        p for depth in range(_DEPTH) for p in root.glob("*/" * depth + f"*{SUFFIX}")
    ]
    listed, others = [], []
    for path in sorted(paths):
        if is_hidden_below(root, path):
            continue
        try:
            names = {name.lower() for name in pq.read_schema(path).names}
        except pa.ArrowException:
            names = {"audio", "label"}  # reading it names the error
        has_sound = "audio" in names or path.stem == "metadata"
        has_label = has_recordings(names, "label")
        (listed if has_sound and has_label else others).append(path)
    return listed, others


def unpacked(root: Path, listed: list[Path], cache: Path) -> Unpacked:
    """Returns the rows of tables of ``root``, with the recordings in the cache.

    Raises:
      UserError: a damaged file, one without recordings or classes, or several
        configurations of a dataset.
    """
    base = root if root.is_dir() else root.parent
    _check_configurations(listed, base)
    name = re.sub(r"[^\w.-]", "_", root.stem)[:60]
    fingerprint = fingerprint_files(listed, base)
    entry = cache / "parquet" / f"{name}-{fingerprint}-{_FORMAT}"
    if not entry.is_dir():
        advice = "set AUDIODD_CACHE, or pass --cache_dir, to a folder that can be"
        with (
            writable(cache, "the cache", advice),
            exclusive(cache / "locks" / entry.name, "unpacking these recordings"),
            named(entry),
        ):
            if not entry.is_dir():
                with files_lib.atomic_folder(entry) as scratch:
                    _unpack(listed, base, scratch)
    found = files_lib.read_json(entry / "rows.json")
    places = _places(listed, base)
    rows = [
        Row(
            table=base / table,
            line=number,
            cells=cells,
            unit="row",
            place=places.get(table, {}),
            sound=entry / file if file else None,
            name=f"{table}/{own or f'row {number}'}",
        )
        for table, number, cells, own, file in found["rows"]
    ]
    return Unpacked(rows, found["class_names"], found["unlabelled"])


class _NoTableError(Exception):
    """A Parquet file that is not a table of labelled recordings, with the reason."""


class _Record(NamedTuple):
    """A row as it is read."""

    cells: dict[str, Any] | None  # None: it has no class
    content: bytes | None  # of the file of the recording, if the table holds it
    path: str  # of the recording, or its name


def _place(table: Path) -> dict[str, Any]:
    """The split or fold in the name of a file (``train-00000-of-00001``) or folder."""
    parts = (table.stem, *reversed(table.parent.parts))
    return next(filter(None, map(part_in, parts)), {})


def _places(listed: list[Path], base: Path) -> dict[str, Place]:
    """The split or fold of each table, as the card declares it or its name has it."""
    declared = hub_card.splits(base)
    names = {path: str(path.relative_to(base)) for path in listed}
    places = {p: declared.get(p) or _place(Path(names[p])) for p in listed}
    settled = development_is_training(places, names)
    return {names[path]: place for path, place in settled.items()}


def _configuration(table: Path) -> str:
    """The folders of a table that name no split."""
    return "/".join(part for part in table.parent.parts if not part_in(part))


def _check_configurations(listed: list[Path], base: Path) -> None:
    """Refuses folders of which several have, say, a test split: one would be mixed."""
    folders = collections.defaultdict(set)
    for table in listed:
        table = table.relative_to(base)
        folders[str(_place(table))].add(_configuration(table))
    for place, names in folders.items():
        if place != "{}" and len(names) > 1:
            raise _several(base, names)


def _several(base: Path, names: Iterable[str]) -> UserError:
    names = sorted(name or "." for name in names)
    return UserError(
        f"{base} holds several configurations of a dataset, {' and '.join(names)}: "
        f"choose one, such as --data_dir={base / names[-1]}"
    )


def _unpack(listed: list[Path], base: Path, folder: Path) -> None:
    """Writes all recordings of some tables, and ``rows.json``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, class_names, unlabelled = [], {}, 0
    contents = collections.defaultdict(set)  # of each configuration
    for table in listed:
        name = table.relative_to(base)
        seen = contents[_configuration(name)]
        clips = folder / "clips" / re.sub(r"[^\w.-]", "_", str(name))
        clips.mkdir(parents=True)
        try:
            with pq.ParquetFile(table) as opened:
                for number, record in enumerate(_records(opened, table, class_names)):
                    if record.cells is None:
                        unlabelled += 1
                        continue
                    own, file = re.sub(r"[^\w.-]", "_", Path(record.path).name), ""
                    if record.content is not None:
                        seen.add(hash(record.content))
                        path = clips / _file_name(number, own[-80:], record.content)
                        path.write_bytes(record.content)
                        file = str(path.relative_to(folder))
                    rows.append((str(name), number, record.cells, own, file))
        except (pa.ArrowException, _NoTableError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{table} cannot be used: {reason}") from error
    for one, other in itertools.combinations(contents, 2):
        fewer = min(len(contents[one]), len(contents[other]))
        if fewer and 2 * len(contents[one] & contents[other]) >= fewer:
            raise _several(base, (one, other))
    found = {"rows": rows, "class_names": list(class_names), "unlabelled": unlabelled}
    files_lib.write_json(folder / "rows.json", found)


def _file_name(number: int, own: str, content: bytes) -> str:
    """The file name of a recording: the row, and the recording's own name."""
    suffix = Path(own).suffix.lower()
    if suffix not in audio.SUFFIXES:
        suffix = _BEGINNINGS.get(content[:4], ".mp3")
    return f"{number:07d}-{Path(own).stem}{suffix}"


def _records(table: Any, path: Path, class_names: dict[str, None]) -> Iterator[_Record]:
    """Yields the rows; adds the names of classes in the schema to ``class_names``."""
    header = table.schema_arrow.names
    # Next to the column audio, other columns of paths are names.
    others = {"path", *ALIASES["path"]} - {"audio"}
    has_audio = "audio" in map(str.lower, header)
    wanted = [n for n in header if not (has_audio and n.lower() in others)]
    values = lambda name: table.read(columns=[name]).column(0).to_pylist()
    columns = columns_of(path, wanted, values)
    label = "labels" if "labels" in columns else "label"
    if not {"path", label} <= columns.keys():
        raise _NoTableError(
            "it needs the columns audio and label, and has " + ", ".join(header)
        )
    if has_audio and (times := [columns[key] for key in _TIMES if key in columns]):
        _log.info(
            "%s: %s apply to rows that name a file, not to recordings in the table",
            *(path.name, ", ".join(times)),
        )
    metadata = table.schema_arrow.metadata or {}
    names = {key: _class_names(metadata, name) for key, name in columns.items()}
    class_names |= dict.fromkeys(names[label])
    batches = table.iter_batches(_ROWS, columns=list(columns.values()))
    rows = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
    total = table.metadata.num_rows
    with progress.bar(total, desc="unpacking", unit="clip") as bar:
        for number, row in enumerate(rows):
            bar.update()
            cells = {key: row[name] for key, name in columns.items()}
            # The Hub's test splits can lack classes: null, or -1.
            if plain(cells[label]) in ("", "-1"):
                yield _Record(None, None, "")
                continue
            where = f"row {number}"
            content, name = _sound(cells.pop("path"), where)
            value, known = cells[label], names[label]
            cells = {
                key: _text(value, names[key], f"the {key} of {where}")
                for key, value in cells.items()
                if key != label
            }
            what = f"the label of {where}"
            if isinstance(value, dict) or _is_nested(value):
                raise _NoTableError(
                    f"{what} is neither a name, a number nor a list of them"
                )
            if isinstance(value, list):
                value = [_text(item, known, what) for item in value]
            elif known:
                value = {"name": _text(value, known, what)}
            elif not isinstance(value, int):
                value = plain(value)
            cells[label] = value
            if content is None:
                cells["path"] = name
            else:  # times next to a recording are where it was cut from
                for key in _TIMES:
                    cells.pop(key, None)
            yield _Record(cells, content, name)


def _sound(cell: Any, where: str) -> tuple[bytes | None, str]:
    """The bytes of a recording, None if the table lacks them, and its path or name."""
    if isinstance(cell, dict) and ("bytes" in cell or "path" in cell):
        content, path = cell.get("bytes"), cell.get("path")
    else:
        content, path = (cell, "") if isinstance(cell, bytes) else (None, cell)
    if not isinstance(content, bytes | None) or not isinstance(path, str | None):
        raise _NoTableError(f"the audio of {where} holds no bytes of a sound file")
    return content, path or ""


def _text(value: Any, names: list[str], what: str) -> str:
    """A cell as text; a number is replaced by its name if ``names`` are given."""
    text = plain(value)
    if not names or not text or isinstance(value, str):
        return text
    if not text.isdecimal() or int(text) >= len(names):
        raise _NoTableError(f"{what} is {text}, but the schema has {len(names)} names")
    return names[int(text)]


def _is_nested(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(v, list | dict) for v in value)


def _class_names(metadata: dict[bytes, bytes], column: str) -> list[str]:
    """The names of a ``ClassLabel`` in a schema that the Hub's library wrote."""
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][column]
        if isinstance(feature, list):
            feature = {"feature": feature[0]}
        feature = feature.get("feature") or feature  # of a list
        return list(feature.get("names") or [])
    except (KeyError, ValueError, TypeError, AttributeError, IndexError):
        return []
