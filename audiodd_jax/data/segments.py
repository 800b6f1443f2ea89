"""Segments of long recordings: label files next to sounds, overlaps, and background.

Label files are the tracks of labels that Audacity exports (``x.txt`` next to ``x.wav``:
start, end and label, separated by tabs), and Raven's selection tables
(``x.Table.1.selections.txt``). Columns of tables are read by ``data/tables.py``.
"""

import collections
import dataclasses
import itertools
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiodd_jax.data import audio, tables, tree
from audiodd_jax.data.recordings import Clip
from audiodd_jax.data.tables import Row
from audiodd_jax.errors import UserError, counted

_log = logging.getLogger(__name__)

# The class of windows that no segment covers.
BACKGROUND = "background"
_AUDACITY = re.compile(r"\s*(\d[\d.,]*)\t\s*(\d[\d.,]*)(?:\t(.*))?")
_RAVEN = "Begin Time (s)"
# Columns of labels in Raven's tables, which are the user's own.
_RAVEN_LABELS = ("Annotation", "Species", "Common Name", "Call Type", "Type")
# Segments that share less, in seconds, only touch.
_TOUCH = 0.01


def next_to_sounds(
    folder: Path, place: Mapping[str, Any], left_out: tree.LeftOut
) -> list[Row]:
    """Reads the label files next to the sounds of a folder, if it has some.

    ``place`` is the split or fold that the folder is named after. Sounds without a
    label file are counted.
    """
    files = [p for p in folder.rglob("*.txt") if not tree.is_hidden_below(folder, p)]
    sounds = tree.sound_files(folder, tree.LeftOut()) if files else []
    by_name = {path.with_suffix(""): path for path in sounds}
    rows, labelled = [], set()
    for file in sorted(files):
        name = file.with_suffix("")
        while name not in by_name and name.suffix:
            name = name.with_suffix("")
        if name in by_name and (found := _label_file(file, by_name[name])) is not None:
            rows += [dataclasses.replace(row, place=place) for row in found]
            labelled.add(by_name[name])
    if not labelled:
        return []
    _log.info("reading the labels next to %s", counted(len(labelled), "recording"))
    for sound in sounds:
        if sound not in labelled:
            left_out.add("recording without a file of labels", sound)
    return rows


def _label_file(file: Path, sound: Path) -> list[Row] | None:
    """The segments that a file lists; None if it is another text."""
    text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    lines = text.splitlines()
    head = next(filter(str.strip, lines), "")
    if _RAVEN in head.split("\t"):
        return _raven(file, sound)
    if not _AUDACITY.fullmatch(head):
        return None
    rows = []
    for line, content in enumerate(lines, start=1):
        if content.startswith("\\"):
            _log.info("%s: ranges of frequency are not used", file.name)
        elif content.strip():
            match = _AUDACITY.fullmatch(content)
            start, end, label = match.groups() if match else ("", "", "")
            cells = {"start": start.replace(",", "."), "end": end.replace(",", ".")}
            row = Row(file, line, {**cells, "label": label or ""}, sound=sound)
            if not match:
                raise row.error("a label has a start, an end and a name, after tabs")
            rows.append(row)
    return rows


def _raven(file: Path, sound: Path) -> list[Row]:
    rows = tables.read(file, ("start", "end"), has_aliases=True)
    if any("Low Freq (Hz)" in row.cells for row in rows):
        _log.info("%s: ranges of frequency are not used", file.name)
    result = []
    for row in rows:
        if (other := row["Begin File"]) not in ("", sound.name):
            raise row.error(f"its times are those of {other}, not of {sound.name}")
        named = [row[name] for name in _RAVEN_LABELS if row[name]]
        cells = {"label": named[0] if named else "", **row.cells}
        result.append(dataclasses.replace(row, cells=cells, sound=sound))
    return result


def end(clip: Clip) -> float:
    """Where a segment ends in its recording, in seconds."""
    return clip.start + clip.seconds if clip.seconds else math.inf


def with_overlaps(clips: Sequence[Clip], are_tags: bool) -> list[Clip]:
    """Gives segments that overlap the labels of each other, as tags.

    Raises:
      UserError: there are such segments, with different labels, and not ``are_tags``.
    """
    result = list(clips)
    for rows in _by_file(clips).values():
        open_rows: list[int] = []
        for i in sorted(rows, key=lambda i: clips[i].start):
            open_rows = [
                j for j in open_rows if end(clips[j]) - clips[i].start > _TOUCH
            ]
            for j in open_rows:
                if not are_tags and clips[i].labels != clips[j].labels:
                    raise UserError(
                        f"{clips[i].row}: this segment ({clips[i].labels[0]}) overlaps "
                        f"that of {clips[j].row} ({clips[j].labels[0]}); "
                        "--config.data.tags=overlapping makes the labels tags of both"
                    )
                for one, other in ((i, j), (j, i)):
                    labels = {*result[one].labels, *clips[other].labels}
                    result[one] = result[one]._replace(labels=tuple(sorted(labels)))
            open_rows.append(i)
    return result


def _by_file(clips: Sequence[Clip]) -> dict[str, list[int]]:
    """The indices of the clips of each recording that has segments."""
    found = collections.defaultdict(list)
    for i, clip in enumerate(clips):
        found[os.path.normpath(clip.path)].append(i)
    has_segments = lambda rows: any(clips[i].seconds for i in rows)
    return {path: rows for path, rows in found.items() if has_segments(rows)}


def background(clips: Sequence[Clip], seconds: float) -> list[Clip]:
    """Draws windows that no segment covers, at most as many as the largest class has.

    Each belongs to the split, fold and group of the segment before it.

    Raises:
      UserError: no window is free of segments.
    """
    windows = []
    for path, rows in _by_file(clips).items():
        try:
            found = audio.length(path)
        except audio.BadAudioError:
            continue  # decoding names it
        segments = sorted((clips[i] for i in rows), key=lambda clip: clip.start)
        last, before, free = found.frames / found.rate, segments[0], 0.0
        for clip in [*segments, segments[-1]._replace(start=last)]:
            for k in range(int((clip.start - free) / seconds + 1e-6)):
                window = before._replace(start=free + k * seconds, seconds=seconds)
                windows.append(named(window, before.name.rpartition("@")[0]))
            before, free = clip, max(free, end(clip))
    if not windows:
        raise UserError(
            f"no stretch of {seconds:g} s is free of segments, for "
            f"--config.data.background={seconds:g}"
        )
    counts = collections.Counter(itertools.chain(*(clip.labels for clip in clips)))
    drawn = np.random.default_rng(0).permutation(len(windows))
    drawn = sorted(drawn[: max(counts.values())].tolist())
    return [windows[i]._replace(labels=(BACKGROUND,)) for i in drawn]


def named(clip: Clip, recording: str) -> Clip:
    """Names a segment after its recording and times: ``day.wav@12.5-13.5``."""
    start, stop = (f"{round(time, 6):.12g}" for time in (clip.start, end(clip)))
    return clip._replace(name=f"{recording}@{start}-{stop}")
