"""Names of the columns of tables, and which column means what."""

import collections
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from audiodd_jax.data.names import part_in, plain
from audiodd_jax.errors import UserError

_log = logging.getLogger(__name__)

# Other names of the columns, the preferred first.
ALIASES = {
    "path": (
        *("file_name", "filename", "file", "filepath", "file_path", "fname"),
        *("audio", "audio_path", "audio_file", "audio_filepath", "audio_filename"),
        *("wav", "wav_path", "wav_file", "wav_filename", "sound_file"),
        *("slice_file_name", "soundfile"),
    ),
    "label": (
        *("class", "category", "class_name", "classname", "label_name"),
        *("primary_label", "labels", "tags"),
    ),
    "split": ("subset", "partition", "set", "dataset_split", "data_split"),
    "fold": ("folds", "cv_fold", "fold_id"),
    # A speaker may have several recordings.
    "group": (
        *("speaker", "speaker_id", "speakerid", "spk", "spk_id", "speaker_name"),
        "speaker_number",
        *("actor", "actor_id", "client_id", "user_id", "subject", "subject_id"),
        *("patient", "patient_id", "participant", "participant_id", "group_id"),
        *("session", "session_id", "recording_id", "source_id", "src_file"),
        *("source_file", "original_file", "fsid", "freesound_id"),
    ),
    "start": ("onset", "begin", "start_time", "begin_time"),
    "end": ("offset", "stop", "end_time", "stop_time"),
    "duration": (),
}
# Names that mean something else where one of the above is present.
LAST_RESORT = {
    "path": (
        *("clip", "clip_name", "clip_id", "recording", "recording_id", "sound"),
        *("itemid", "item_id", "utterance_id", "utt_id", "utterance", "sample"),
        *("sample_id", "sound_id", "track", "track_id", "id", "name", "fn"),
    ),
    "label": (
        *("species", "common_name", "scientific_name", "ebird_code", "bird"),
        *("emotion", "emotions", "genre", "genre_top", "command", "keyword", "word"),
        *("intent", "intent_class", "digit", "instrument", "event", "event_label"),
        *("scene", "scene_label", "sound_class", "classes", "annotation", "tag"),
        *("language", "accent", "gender", "sentiment", "diagnosis", "disease"),
        *("hasbird", "ground_truth", "target", "class_id", "classid", "label_id"),
        "y",
    ),
}
# Names of columns of tags, which are read if there is no other column of labels.
PLURAL = ("labels", "tags")
# Units in names of columns, such as "Begin Time (s)", and others than seconds.
_SECONDS = re.compile(r"_[(\[]?(?:s|secs?|seconds?)[)\]]?$")
_NOT_SECONDS = re.compile(r"_[(\[]?(?:ms|msecs?|milliseconds?|samples?|frames?)[)\]]?$")
_TIMES = ("start", "end", "duration")

# The values of a column.
Values = Callable[[str], Iterable[Any]]


def columns_of(
    table: Path,
    header: Iterable[str],
    values: Values | None = None,
    is_of_recordings: bool = True,
) -> dict[str, str]:
    """Maps canonical names to a table's columns, whatever their case.

    Columns that could mean the same are compared by their ``values``. A table that is
    not ``is_of_recordings`` needs neither paths nor labels.

    Raises:
      UserError: two columns of one name, or two that could be meant by one.
    """
    named = _by_name(table, header)
    result: dict[str, str] = {}
    choices = []
    for canonical in ALIASES:
        found = _candidates(canonical, named, is_of_recordings)
        if canonical == "group":  # an id may be the name of the file
            found = [name for name in found if named[name][0] != result.get("path")]
        if not found:
            continue
        chosen = _chosen(table, canonical, found, named, values)
        column = named[chosen][0]
        if canonical == "split" != chosen and values and not _is_split(values(column)):
            choices.append(f"{column} is not used, since it names no splits")
            continue
        result["labels" if chosen in PLURAL else canonical] = column
        others = ", ".join(named[name][0] for name in found if name != chosen)
        if others:
            choices.append(f"{canonical} is {column}, not {others}")
        elif column != canonical and column.lower() != "audio":
            choices.append(f"{column} as {canonical}")
    choices += _with_times(result)
    if choices:
        _log.info("reading %s: %s", table.name, "; ".join(choices))
    return result


def _by_name(table: Path, header: Iterable[str]) -> dict[str, list[str]]:
    """The columns by their names in lower case, without units of seconds."""
    named = collections.defaultdict(list)
    for column in header:
        name = _normal(column)
        named[_SECONDS.sub("", name)].append(column)
        times = ("start", *ALIASES["start"], "end", *ALIASES["end"])
        if _NOT_SECONDS.search(name) and _NOT_SECONDS.sub("", name) in times:
            _log.warning("%s: %s is not used; times are in seconds", table.name, column)
    return named


def _candidates(
    canonical: str, named: Mapping[str, Any], is_of_recordings: bool
) -> list[str]:
    """The names of columns that could be the canonical one, the preferred first."""
    found = [name for name in (canonical, *ALIASES[canonical]) if name in named]
    if found or not is_of_recordings:
        return found
    return [name for name in LAST_RESORT.get(canonical, ()) if name in named]


def _chosen(
    table: Path,
    canonical: str,
    found: Sequence[str],
    named: Mapping[str, Sequence[str]],
    values: Values | None,
) -> str:
    """The name among the candidates; raises UserError if it is not clear."""
    if len(same := named[found[0]]) > 1:
        raise UserError(
            f"{table} has the columns {' and '.join(same)}, which are one name: "
            f"rename all but one of them"
        )
    rivals = [name for name in found if name not in PLURAL] or found
    if len(rivals) == 1 or rivals[0] == canonical or canonical == "group":
        return rivals[0]
    chosen = ""
    if values:
        cells = {name: list(map(plain, values(named[name][0]))) for name in rivals}
        chosen = _of_equals(canonical, cells)
    if not chosen:
        raise UserError(
            f"{table}: {' and '.join(rivals)} could both be the column {canonical}; "
            f"rename one of them to {canonical}"
        )
    return chosen


def _with_times(columns: dict[str, str]) -> list[str]:
    """Settles what times mean, in place; returns words if they are not used."""
    has_duration = "duration" in columns and "start" not in columns
    if has_duration and columns.get("end", "").strip().lower() == "offset":
        # An offset next to a duration is where the segment starts.
        columns["start"] = columns.pop("end")
    # In UrbanSound8K the files are the slices.
    are_slices = columns.get("path", "").strip().lower() == "slice_file_name"
    if are_slices and [name for name in _TIMES if columns.pop(name, "")]:
        return ["times are of the recordings that slices were cut from"]
    return []


def has_recordings(names: Iterable[str], column: str) -> bool:
    """Returns whether columns of these names include a ``path`` or ``label``."""
    known = {column, *ALIASES[column], *LAST_RESORT[column]}
    return not known.isdisjoint(map(_normal, names))


def _normal(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _of_equals(canonical: str, columns: dict[str, Sequence[str]]) -> str:
    """The best of columns that say the same; empty if they contradict each other."""
    first, *others = columns.values()
    if not first:
        return ""
    if canonical == "path":
        ends = lambda cells: [PurePosixPath(cell).stem for cell in cells]
        if any(ends(cells) != ends(first) for cells in others):
            return ""
        return max(columns, key=lambda name: columns[name][0].count("/"))
    if canonical != "label":
        return next(iter(columns)) if all(cells == first for cells in others) else ""
    for cells in others:  # names of classes and their numbers
        pairs = set(zip(first, cells, strict=True))
        if not len(pairs) == len(set(first)) == len(set(cells)):
            return ""
    is_named = lambda name: (
        not all(cell.lstrip("-").isdecimal() for cell in columns[name])
    )
    return next(filter(is_named, columns), next(iter(columns)))


def _is_split(cells: Iterable[Any]) -> bool:
    return any(part_in(word).get("split") for word in set(map(plain, cells)))
