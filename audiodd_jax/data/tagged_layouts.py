"""Folders of published datasets with tags, as they are unpacked.

- **FSD50K**: ``FSD50K.ground_truth/dev.csv`` (``fname,labels,mids,split``) and
  ``eval.csv``, with labels separated by commas; ``FSD50K.dev_audio/FNAME.wav`` and
  ``FSD50K.eval_audio/FNAME.wav``.
- **HEAR**: ``train.json``, ``valid.json`` and ``test.json`` (or ``fold00.json`` and so
  on), from file names to lists of labels; ``RATE/train/FILE`` and so on, of which the
  highest rate is read; ``labelvocabulary.csv`` (``idx,label``).

References:
  Fonseca et al., *FSD50K: An Open Dataset of Human-Labeled Sound Events*, IEEE/ACM
  TASLP 2022. Turian et al., *HEAR: Holistic Evaluation of Audio Representations*,
  NeurIPS 2021 Competitions.
"""

import logging
import re
from pathlib import Path
from typing import NamedTuple

from audiodd_jax.data import tables
from audiodd_jax.data.names import label_names, named_part
from audiodd_jax.data.recordings import TEST, TRAIN, Clip
from audiodd_jax.data.tree import LeftOut, count_unlisted
from audiodd_jax.errors import UserError
from audiodd_jax.runtime.files import read_json

_log = logging.getLogger(__name__)

TRUTH = "FSD50K.ground_truth"
_VOCABULARY = "labelvocabulary.csv"
_HEAR_PART = re.compile(r"(train|valid|test|fold\d{1,4})\.json")


class Listing(NamedTuple):
    """The clips that a folder or its tables list."""

    clips: list[Clip]
    tables: list[Path]  # that were read
    has_tags: bool  # tags instead of a single class per clip
    class_names: tuple[str, ...] = ()  # in their order; empty: sorted


def read(root: Path, left_out: LeftOut) -> Listing | None:
    """Lists the clips of a folder; None if it has neither of these layouts.

    Recordings that no table lists are counted.

    Raises:
      UserError: a table is damaged or missing, or labels are of events in time.
    """
    if (root / TRUTH / "dev.csv").is_file():
        listing = _fsd50k(root)
    elif (root / _VOCABULARY).is_file():
        listing = _hear(root)
    else:
        return None
    listed = {clip.path for clip in listing.clips}
    for folder in sorted({path.parent for path in listed}):
        if folder.is_dir():
            count_unlisted(folder, listed, left_out)
    return listing


def _fsd50k(root: Path) -> Listing:
    _log.info("reading %s as FSD50K", root)
    clips, files = [], []
    for part in ("dev", "eval"):
        table = root / TRUTH / f"{part}.csv"
        if not table.is_file():
            raise UserError(f"{root} looks like FSD50K, but lacks {TRUTH}/{part}.csv")
        files.append(table)
        columns = ("fname", "labels", *(("split",) if part == "dev" else ()))
        sounds = root / f"FSD50K.{part}_audio"
        for row in tables.read(table, columns):
            labels = label_names(row["labels"].split(","))
            split = row.split if part == "dev" else TEST
            name = f"{row['fname'].removesuffix('.wav')}.wav"
            clips.append(Clip(sounds / name, labels, split=split))
    return Listing(clips, files, has_tags=True)


def _hear(root: Path) -> Listing:
    """The layout of HEAR.

    Clips have one class each if all lists have one label, unless
    ``task_metadata.json`` has the ``prediction_type`` ``multilabel``.
    """
    vocabulary = root / _VOCABULARY
    known = {row["label"] for row in tables.read(vocabulary, ("label",))}
    parts = [p for p in sorted(root.glob("*.json")) if _HEAR_PART.fullmatch(p.name)]
    rates = [p for p in root.iterdir() if p.name.isdecimal() and p.is_dir()]
    if not parts or not rates:
        raise UserError(
            f"{root} has a {_VOCABULARY} like a task of HEAR, but no "
            f"{'train.json' if not parts else 'folder of a sample rate such as 48000'}"
        )
    sounds = max(rates, key=lambda path: int(path.name))
    _log.info("reading %s as a task of HEAR, at %s Hz", root, sounds.name)
    clips, has_several = [], False
    for table in parts:
        mark = named_part(table.stem)
        for file, labels in _labels(table, known).items():
            path = sounds / table.stem / file
            clips.append(Clip(path, label_names(labels), **mark))
            has_several |= len(labels) != 1
    metadata = root / "task_metadata.json"
    task = read_json(metadata) if metadata.is_file() else {}
    kind = task.get("prediction_type") if isinstance(task, dict) else None
    if not any(clip.fold is not None or clip.split == TRAIN for clip in clips):
        raise UserError(f"{root} has no clips to train on: train.json is missing")
    return Listing(clips, [*parts, vocabulary], kind == "multilabel" or has_several)


def _labels(table: Path, vocabulary: set[str]) -> dict[str, list[str]]:
    """Reads the labels of each file in a table of HEAR."""
    values = read_json(table)
    if not isinstance(values, dict) or not all(
        isinstance(labels, list) for labels in values.values()
    ):
        raise UserError(f"{table} is not a table of file names with lists of labels")
    result = {}
    for file, labels in values.items():
        if any(isinstance(label, dict) for label in labels):
            raise UserError(
                f"{table} has labels of events in time, such as those of {file}; "
                "only labels of whole clips can be used"
            )
        result[file] = [str(label).strip() for label in labels]
        if unknown := [label for label in result[file] if label not in vocabulary]:
            raise UserError(
                f"{table}: {file} has the label {unknown[0]!r}, which {_VOCABULARY} "
                "lacks"
            )
    return result
