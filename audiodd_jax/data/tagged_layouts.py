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
from typing import Any, NamedTuple

from audiodd_jax.data import csv_tables
from audiodd_jax.data.files_found import LeftOut, recordings
from audiodd_jax.data.recordings import TEST, TRAIN
from audiodd_jax.data.tree import SPLIT_NAMES
from audiodd_jax.errors import UserError
from audiodd_jax.runtime.files import read_json

_log = logging.getLogger(__name__)

_TRUTH = "FSD50K.ground_truth"
_VOCABULARY = "labelvocabulary.csv"
_HEAR_PART = re.compile(r"(train|valid|test|fold(\d{1,4}))\.json")


class Layout(NamedTuple):
    """What a folder's tables say.

    Attributes:
      rows: ``path``, ``label`` (a tuple of names), and ``split`` or ``fold``.
      tables: files that were read.
      has_tags: whether clips have tags instead of one class each.
    """

    rows: list[dict[str, Any]]
    tables: list[Path]
    has_tags: bool


def read(place: Path, left_out: LeftOut) -> Layout | None:
    """The rows of a folder in one of these layouts; None if it is in neither.

    Args:
      place: the folder.
      left_out: counts recordings that no table lists.

    Raises:
      UserError: a table is damaged or missing, or labels are of events in time.
    """
    if (place / _TRUTH / "dev.csv").is_file():
        found = _fsd50k(place)
    elif (place / _VOCABULARY).is_file():
        found = _hear(place)
    else:
        return None
    listed = {row["path"] for row in found.rows}
    for folder in sorted({path.parent for path in listed}):
        for path in recordings(folder, left_out) if folder.is_dir() else ():
            if path not in listed:
                left_out.add("recording that no table lists", path)
    return found


def _fsd50k(place: Path) -> Layout:
    _log.info("reading %s as FSD50K", place)
    rows, tables = [], []
    for part, own in (("dev", ""), ("eval", TEST)):
        table = place / _TRUTH / f"{part}.csv"
        if not table.is_file():
            raise UserError(f"{place} looks like FSD50K, but lacks {_TRUTH}/{part}.csv")
        tables.append(table)
        needed = ("fname", "labels") if own else ("fname", "labels", "split")
        for line, record in enumerate(csv_tables.read(table, needed), start=2):
            split = own or SPLIT_NAMES.get(record["split"].strip().lower(), "")
            if not split:
                raise UserError(
                    f"{table}, line {line}: the split is train or val, not "
                    f"{record['split']!r}"
                )
            name = f"{record['fname'].strip()}.wav"
            rows.append(
                {
                    "path": place / f"FSD50K.{part}_audio" / name,
                    "label": tuple(record["labels"].split(",")),
                    "split": split,
                }
            )
    return Layout(rows, tables, has_tags=True)


def _hear(place: Path) -> Layout:
    """The layout of HEAR; of one class per clip if all lists have one label.

    ``prediction_type`` of ``task_metadata.json`` decides where it is there.
    """
    vocabulary = place / _VOCABULARY
    known = {row["label"].strip() for row in csv_tables.read(vocabulary, ("label",))}
    parts = {}
    for table in sorted(place.glob("*.json")):
        if match := _HEAR_PART.fullmatch(table.name):
            parts[table] = match
    is_rate = lambda path: path.name.isdecimal() and path.is_dir()
    rates = list(filter(is_rate, place.iterdir()))
    if not parts or not rates:
        raise UserError(
            f"{place} has a {_VOCABULARY} as tasks of HEAR have, but no "
            f"{'train.json' if not parts else 'folder of a sample rate, as 48000'}"
        )
    audio = max(rates, key=lambda path: int(path.name))
    _log.info("reading %s as a task of HEAR, at %s Hz", place, audio.name)
    rows = []
    for table, match in parts.items():
        name, fold = match.groups()
        own = {"fold": int(fold)} if fold else {"split": SPLIT_NAMES[name]}
        for file, labels in _labels_of(table, known).items():
            rows.append({"path": audio / name / file, "label": labels, **own})
    metadata = place / "task_metadata.json"
    about = read_json(metadata) if metadata.is_file() else {}
    kind = about.get("prediction_type") if isinstance(about, dict) else None
    several = any(len(row["label"]) != 1 for row in rows)
    has_tags = several or kind == "multilabel"
    if not any(row.get("split") in (None, TRAIN) for row in rows):
        raise UserError(f"{place} has no clips to train on: train.json is missing")
    return Layout(rows, [*parts, vocabulary], has_tags)


def _labels_of(table: Path, known: set[str]) -> dict[str, tuple[str, ...]]:
    """The labels of each file in a table of HEAR.

    Raises:
      UserError: it holds something else, or labels that the vocabulary lacks.
    """
    values = read_json(table)
    if not isinstance(values, dict) or not all(
        isinstance(labels, list) for labels in values.values()
    ):
        raise UserError(f"{table} is not a table of file names with lists of labels")
    found = {}
    for file, labels in values.items():
        if any(isinstance(label, dict) for label in labels):
            raise UserError(
                f"{table} has labels of events in time, such as those of {file}; "
                "only labels of whole clips can be used"
            )
        found[file] = tuple(str(label).strip() for label in labels)
        if unknown := [label for label in found[file] if label not in known]:
            raise UserError(
                f"{table}: {file} has the label {unknown[0]!r}, which {_VOCABULARY} "
                "lacks"
            )
    return found
