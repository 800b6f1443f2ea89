"""A person's rounds of active learning: ask, train, ask again.

A session asks for batches of recordings. While fewer than two classes are known it
covers the recordings without a network; then it trains and chooses as the simulated
rounds do (``rounds.py``). A random part of the recordings is for validation: answers on
them are never trained on, so that they estimate the accuracy on recordings like these.
"""

import collections
import dataclasses
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float

from audiodd_jax.active_learning import review, stopping
from audiodd_jax.active_learning.learner import (
    Learner,
    Prediction,
    is_trainable,
    scores,
)
from audiodd_jax.config import Config, fields, presets
from audiodd_jax.config.user_paths import local
from audiodd_jax.data import datasets, sessions
from audiodd_jax.data.answers import Journal
from audiodd_jax.data.names import label_names
from audiodd_jax.data.recordings import TEST, TRAIN, Clip
from audiodd_jax.errors import UserError
from audiodd_jax.features import cache, encoders
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.networks.models import Network
from audiodd_jax.runtime import files, lease, mirror
from audiodd_jax.runtime.environment import standard_numerics
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.training import networks_file

_log = logging.getLogger(__name__)

# Settings of a session that may change from one command to the next.
_MAY_CHANGE = ("model", "training", "active", "session", "seed")
_FIXED = ("session.tags", "session.validation")


@dataclasses.dataclass
class Session:
    """An open session; a context manager that holds the lock of its folder.

    Attributes:
      config: a configuration made by ``for_active``; ``session.sounds`` names the
        folder of recordings.
      workdir: folder of the session; a session that it holds continues.
      clips: the recordings, by name.
      skipped: recordings that cannot be decoded, with reasons.
      rounds: a row per trained network.
    """

    config: Config
    workdir: Path
    clips: dict[str, Clip] = dataclasses.field(init=False)
    skipped: tuple[str, ...] = dataclasses.field(init=False)
    rounds: list[dict[str, Any]] = dataclasses.field(init=False)
    journal: Journal = dataclasses.field(init=False)
    prediction: Prediction | None = dataclasses.field(init=False, default=None)

    def __post_init__(self) -> None:
        self.workdir = local(self.workdir)
        place_of = lambda path: mirror.url_of(Path(path)) or str(path)
        changes = {"data.name": "folder", "data.data_dir": place_of(self.workdir)}
        for name in ("session.sounds", "session.known"):
            if place := fields.get(self.config, name):  # from any working folder
                changes[name] = place_of(os.path.abspath(local(place)))
        self.config = fields.replace(self.config, changes)
        fields.validate(self.config)
        self._working = threading.Lock()

    def __enter__(self) -> "Session":
        self._encoder = encoders.of_head(self.config.encoder, self.config.model.name)
        features = encoders.front_end(self.config.features, self._encoder)
        self.config = dataclasses.replace(self.config, features=features)
        record = fields.record(self.config, fields.SESSION)
        options = presets.run_options(self.config, fields.SESSION)
        may_change = [
            name
            for name in fields.names(self.config)
            if name.split(".")[0] in _MAY_CHANGE and name not in _FIXED
        ]
        options["may_change"] = (*options["may_change"], *may_change)
        settings = self.config.session
        found = sessions.pool(settings, self.config.data)  # refuses before a folder
        self._run = RunDirectory(self.workdir, record, **options)
        self._run.__enter__()
        try:
            self._open(found)
        except BaseException as error:
            self._run.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _open(self, found: Sequence[Clip]) -> None:
        path, settings = self._run.path, self.config.session
        history = self._run.history()
        self._run.start_from(history[-1]["step"] if history else -1)
        if not (path / datasets.JOURNAL).exists():
            (path / datasets.JOURNAL).touch()
        stored = self._spectrograms = cache.prepare(
            self.config.data, self.config.features
        )
        if self._encoder:
            stored = encoders.embedded(stored, self._encoder)
        usable = set(map(str, stored.names))
        self.clips = {clip.name: clip for clip in found if clip.name in usable}
        self.skipped = stored.skipped
        is_embedded = self._encoder is not None
        self._learner = Learner(self.config, stored, self.clips, is_embedded)
        self.journal = sessions.open_journal(path, settings, found)
        sessions.add_unpublished(self.journal, path)
        self.rounds = history
        gone = [n for n in self.journal.labelled if n not in self.clips]
        if gone:
            _log.warning("%d answered recordings are gone: %s", len(gone), gone[0])
        with_prediction = path / "predictions.npz"
        if with_prediction.exists():
            arrays = files.load_npz(with_prediction)
            names = lambda key: tuple(map(str, arrays[key]))
            self.prediction = Prediction(
                *(names("names"), names("class_names"), arrays["probabilities"]),
                has_tags=settings.tags,
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            lease.commit(self.workdir)
        except UserError:
            if error is None:
                raise
        finally:
            self._run.__exit__(kind, error, trace)

    # Answers.

    @property
    def waiting(self) -> list[str]:
        """The recordings that wait for an answer."""
        return [name for name in self.journal.waiting() if name in self.clips]

    @property
    def class_names(self) -> list[str]:
        """All classes, in the order of their appearance."""
        return list(self.journal.class_names)

    @property
    def answered(self) -> int:
        """Number of recordings that a person has labelled."""
        return len(self.journal.labelled)

    @property
    def budget(self) -> int:
        """Number of answers after which the session ends."""
        unlabelled = sum(not clip.labels for clip in self.clips.values())
        return min(self.config.session.budget or unlabelled, unlabelled)

    @property
    def can_ask(self) -> bool:
        """True if recordings are left for another batch, within the budget."""
        left = self.budget - self.answered - len(self.waiting)
        return left > 0 and bool(self._free())

    def answer(self, name: str, labels: Sequence[str]) -> None:
        """Keeps an answer: one class, or any number of tags. It is on the disk then.

        Raises:
          UserError: the recording is unknown, or the labels are not possible.
        """
        self._check(name)
        cleaned = tuple(dict.fromkeys(label_names(labels)))
        if not self.config.session.tags and len(cleaned) != 1:
            given = f"not {len(cleaned)}" if cleaned else "and none was given"
            raise UserError(f"{name} takes one class, {given}; --tags allows several")
        if any(";" in label for label in cleaned):
            raise UserError(f"{name}: a class name has no semicolon")
        self.journal.append({"clip": name, "labels": list(cleaned)})

    def skip(self, name: str) -> None:
        """Leaves a recording for a later batch."""
        self._check(name)
        self.journal.append({"clip": name, "skip": True})

    def unsure(self, name: str) -> None:
        """Records that the class of a recording cannot be heard."""
        self._check(name)
        self.journal.append({"clip": name, "unsure": True})

    def keep(self, name: str) -> None:
        """Confirms an answer that networks contradict."""
        self._check(name)
        self.journal.append({"keep": name})

    def undo(self) -> str | None:
        """Takes the last answer back; returns its recording, or None without one."""
        with self.journal.lock:
            name = self.journal.latest
            if name is not None:
                self.journal.append({"undo": name})
        return name

    def _check(self, name: str) -> None:
        if name not in self.clips:
            raise UserError(f"there is no recording {name} in this session")

    # Rounds.

    @standard_numerics()
    def next_batch(self) -> tuple[str, ...]:
        """Trains on the answers so far and asks for a batch; empty: nothing is left."""
        with self._working:
            data, splits = self._learner.data(self.journal)
            free = self._free()
            left = self.budget - self.answered - len(self.waiting)
            count = max(0, min(self.config.session.batch, len(free), left))
            number = len(self.journal.batches)
            networks, train = None, np.flatnonzero(splits == TRAIN)
            if is_trainable(data, train):
                networks = self._train(data, splits, number)
            if not count:
                return ()
            batch = self._learner.choose(data, train, networks, free, count, number)
            self.journal.append({"ask": list(batch)})
            return batch

    def _free(self) -> list[str]:
        """Lists recordings for a next batch; those that were skipped come last."""
        asked = collections.Counter(name for b in self.journal.batches for name in b)
        closed = {*self.journal.labelled, *self.waiting}
        free = [
            name
            for name, clip in self.clips.items()
            if not clip.labels and name not in closed
            if not ((one := self.journal.answer(name)) and one.is_unsure)
        ]
        return sorted(free, key=lambda name: asked[name])

    def _train(self, data: Dataset, splits: np.ndarray, number: int) -> Network:
        """Trains on the answers, scores the networks, and records a row."""
        began = time.perf_counter()
        train, test = (np.flatnonzero(splits == one) for one in (TRAIN, TEST))
        networks, probabilities = self._learner.fit(data, train, number)
        names = self._learner.names
        now = Prediction(names, data.class_names, probabilities, data.has_tags)
        row: dict[str, Any] = {
            "step": self.rounds[-1]["step"] + 1 if self.rounds else 1,
            "labelled": int(train.size),
            "validated": int(test.size),
            "classes": data.num_classes,
            "measure": data.metric,
            **scores(now, np.asarray(data.train.labels)[test], test),
        }
        if self.prediction and self.prediction.names == names:
            row["agreement"] = stopping.agreement(self.prediction.words, now.words)
        row["seconds"] = round(time.perf_counter() - began, 3)
        networks_file.save(
            self._run.path / "networks.npz", networks, data, self.config.model
        )
        files.save_npz(
            self._run.path / "predictions.npz",
            names=np.array(names),
            class_names=np.array(data.class_names),
            probabilities=probabilities,
        )
        self._run.log(row)
        self.rounds.append(row)
        self.prediction = now
        return networks

    # Advice.

    def advice(self) -> str:
        """Returns the stopping advice in one sentence."""
        return stopping.advice(
            [r["agreement"] for r in self.rounds if "agreement" in r]
        )

    def opinion(self, name: str) -> list[tuple[str, float]]:
        """Returns what the last networks think of a recording, the likeliest first."""
        if self.prediction is None or name not in self.prediction.names:
            return []
        row = self.prediction.probabilities[self.prediction.names.index(name)]
        order = np.argsort(-row, kind="stable")
        return [(self.prediction.class_names[i], float(row[i])) for i in order]

    def log_mel(self, name: str) -> Float[np.ndarray, "f t"]:
        """Returns the log-mel spectrogram of a recording in dB."""
        row = self._learner.names.index(name)
        return np.asarray(self._spectrograms.features[row], np.float32)

    @standard_numerics()
    def contested(self) -> list[tuple[str, str]]:
        """Lists answers that all networks contradict, with what these predict.

        Answers that were already reviewed are left out.
        """
        with self._working:
            data, splits = self._learner.data(self.journal)
            train, test = (np.flatnonzero(splits == one) for one in (TRAIN, TEST))
            if not is_trainable(data, train):
                return []
            labels, seed = np.asarray(data.train.labels), self.config.seed
            learn = lambda rows, number: self._learner.fit(data, rows, number)[1]
            found = review.contested(labels, train, test, learn, seed)
            names = tuple(self._learner.names[row] for row in found.rows)
            words = Prediction(names, data.class_names, found.predicted, data.has_tags)
            pairs = zip(names, map(str, words.words), strict=True) if names else ()
            asked = {n for n, clip in self.clips.items() if not clip.labels}
            return [(n, w) for n, w in pairs if n in asked - self.journal.kept]
