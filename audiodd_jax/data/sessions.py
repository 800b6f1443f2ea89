"""Labelling sessions: their recordings, and their answers as a dataset.

The folder of a session holds ``config.json`` with its settings and ``answers.jsonl``,
the journal.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from audiodd_jax.config import DataConfig, SessionConfig, fields
from audiodd_jax.config.user_paths import expanded
from audiodd_jax.data import audio, datasets, folder, recordings, tree
from audiodd_jax.data.answers import Journal
from audiodd_jax.data.names import printable
from audiodd_jax.data.recordings import (
    TEST,
    TRAIN,
    UNLABELLED,
    Clip,
    Relabelled,
    Source,
)
from audiodd_jax.errors import UserError
from audiodd_jax.runtime import mirror
from audiodd_jax.runtime.files import read_json

_log = logging.getLogger(__name__)


def settings_of(path: Path) -> SessionConfig:
    """Returns the settings of a session."""
    values = read_json(path / "config.json")
    if not isinstance(values, dict) or "session" not in values:
        raise UserError(f"{path} is not a session of audiodd label")
    return fields.from_dict(values["session"], SessionConfig)


def held_out(clip: Clip, share: float) -> float:
    """Returns the place of a recording in the order of validation; 1 or more: never.

    The digest of its name decides, so that the validation part is a random sample that
    neither the answers nor new recordings change. Copies of a recording share its part.
    """
    digest = hashlib.sha256(os.fsencode(clip.group or clip.name)).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return place / share if share else 1.0


def pool(settings: SessionConfig, data: DataConfig) -> list[Clip]:
    """Lists the recordings of a session; only those of ``known`` have labels.

    Raises:
      UserError: there are no recordings, or two have one name.
    """
    root = Path(expanded(settings.sounds))
    for place in filter(None, (root, settings.known and expanded(settings.known))):
        mirror.fetch(Path(place), lazy=tuple(audio.SUFFIXES))
    if not root.is_dir():
        raise UserError(f"there is no folder of sounds {root}")
    left_out = tree.LeftOut()
    files = tree.sound_files(root, left_out)
    for reason, count, example in left_out.rows():
        _log.info("left out: %d, %s: %s", count, reason, example)
    clips = [Clip(path, (), printable(str(path.relative_to(root)))) for path in files]
    if settings.known:
        clips += folder.labelled_clips(settings.known, data, settings.tags)
    if not files:
        raise UserError(f"the folder {root} holds no sound file to label")
    names = [clip.name for clip in clips]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"two recordings are called {twice}; rename one of them")
    return folder.grouped(clips)


def open_journal(path: Path, settings: SessionConfig, clips: Sequence[Clip]) -> Journal:
    """Reads a session's journal; the first classes are those of the settings."""
    known = (label for clip in clips for label in clip.labels)
    return Journal(path / datasets.JOURNAL, dict.fromkeys((*settings.classes, *known)))


def add_unpublished(journal: Journal, path: Path) -> None:
    """Adds answers that a killed process could not bring to an object store.

    Another machine has continued the session since, and its answers count.
    """
    for file in path.glob(f"{mirror.UNPUBLISHED}*{datasets.JOURNAL}"):
        found = Journal(file).labelled
        added = [name for name in found if journal.answer(name) is None]
        for name in added:
            journal.append({"clip": name, "labels": list(found[name])})
        if added:
            _log.info("answers of this machine that were not published: %d", len(added))
        file.unlink()


def open_source(config: DataConfig) -> Source:
    """Opens the session in ``config.data_dir`` as a dataset.

    Answers on the validation part are the test split, and other answers are for
    training. Recordings without labels have the split ``unlabelled``. The features do
    not depend on the answers, so they are computed once.
    """
    path = Path(expanded(config.data_dir))
    settings = settings_of(path)
    clips = pool(settings, config)
    entry = datasets.lookup("folder")

    def read() -> recordings.Recordings:
        blank = [clip._replace(labels=(UNLABELLED,), split="") for clip in clips]
        return recordings.index(blank, (UNLABELLED,), has_tags=False)

    def relabel(names: Shaped[np.ndarray, " clips"]) -> Relabelled:
        journal = open_journal(path, settings, clips)
        return relabelled(names, clips, journal, settings)

    paths, root = [clip.path for clip in clips], Path(expanded(settings.sounds))
    root = root if mirror.url_of(root) else Path("/")
    marks = [recordings.fingerprint_files(paths, root)]
    marks += [hashlib.sha256(repr([c.name for c in clips]).encode()).hexdigest()[:16]]
    return Source(
        name="folder",
        version=entry.version,
        licence=entry.licence,
        fingerprint="-".join(["session", *marks]),
        read=read,
        has_tags=settings.tags,
        relabel=relabel,
    )


def relabelled(
    names: Shaped[np.ndarray, " clips"],
    clips: Sequence[Clip],
    journal: Journal,
    settings: SessionConfig,
) -> Relabelled:
    """Returns the labels and splits of recordings by known labels and answers.

    A class whose answers were all taken back is not one.
    """
    by_name = {clip.name: clip for clip in clips}
    known = {clip.name: clip.labels for clip in clips if clip.labels}
    labels = {**known, **journal.labelled}
    used = {*settings.classes, *(label for row in labels.values() for label in row)}
    class_names = tuple(name for name in journal.class_names if name in used)
    class_names = class_names or (UNLABELLED,)
    splits = []
    for name in map(str, names):
        clip = by_name[name]
        is_test = clip.split == TEST
        if not clip.labels:
            is_test = held_out(clip, settings.validation) < 1
        splits.append((TEST if is_test else TRAIN) if name in labels else UNLABELLED)
    rows = [labels.get(str(name), ()) for name in names]
    array = recordings.label_array(rows, class_names, settings.tags)
    return Relabelled(class_names, array, np.array(splits, str))
