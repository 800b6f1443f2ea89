"""A person's answers: a journal on disk, which loses nothing.

Each event appends a line. A recording is named by its path below the folder of sounds,
and its last answer counts:

    {"ask": ["a.wav", "b.wav"]}            a batch to answer
    {"clip": "a.wav", "labels": ["dog"]}   an answer; no labels: none of the tags
    {"clip": "b.wav", "skip": true}        asked again in a later batch
    {"clip": "b.wav", "unsure": true}      never asked again: nobody can tell
    {"undo": "a.wav"}                      takes the last answer back
    {"keep": "a.wav"}                      an answer that was reviewed, and holds

A killed process leaves at most one incomplete line, which is dropped.
"""

import json
import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from audiodd_jax.errors import UserError
from audiodd_jax.runtime import lease

_log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """The labels of a recording, or None if the person skipped it or cannot tell."""

    labels: tuple[str, ...] | None
    is_unsure: bool = False


class Journal:
    """The events of a session. One process writes it; its threads may share it.

    Attributes:
      batches: the recordings of each batch, in the order of asking.
      class_names: in the order of appearance.
      kept: recordings whose answers were reviewed.
    """

    def __init__(self, path: Path, class_names: Iterable[str] = ()):
        self.lock = threading.RLock()
        self.batches: list[tuple[str, ...]] = []
        self.class_names = list(class_names)
        self.kept: set[str] = set()
        self._answers: dict[str, list[Answer]] = {}
        self._events: dict[str, int] = {}
        self._order: list[str] = []  # recordings in the order of their answers
        self._path = path
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        self._size, self._is_torn = len(whole), len(whole) < len(content)
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                self._apply(json.loads(line))
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise UserError(
                    f"{path}, line {number} is damaged; mend or delete this line"
                ) from error

    def append(self, event: dict[str, Any]) -> None:
        """Writes an event to the disk, and applies it only then.

        In an object store it is published a few seconds later.

        Raises:
          InUseError: another process has taken over the session; the event is kept.
        """
        line = json.dumps(event).encode() + b"\n"
        with self.lock:
            if self._is_torn:
                _log.warning("%s: its incomplete last line is dropped", self._path)
                self._is_torn = False
            is_new = not self._path.exists()
            try:
                with self._path.open("ab") as file:
                    # After what a killed process or a full disk may have left.
                    file.truncate(self._size)
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
                if is_new:
                    self._keep_name()
            except OSError as error:
                error.filename = os.fspath(self._path)
                raise
            self._size += len(line)
            self._apply(event)
        lease.commit_soon(self._path.parent)

    def _keep_name(self) -> None:
        """Writes the folder to the disk: a power cut could lose the new file's name."""
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _apply(self, event: dict[str, Any]) -> None:
        if "ask" in event:
            self.batches.append(tuple(event["ask"]))
            return
        name = str(event.get("undo") or event.get("keep") or event["clip"])
        self._events[name] = self._events.get(name, 0) + 1
        if "keep" in event:
            self.kept.add(name)
        elif "undo" in event:
            self._answers[name].pop()
            at = len(self._order) - 1 - self._order[::-1].index(name)
            del self._order[at]
        else:
            labels = event.get("labels")
            if labels is not None:
                labels = tuple(map(str, labels))
                new = (one for one in labels if one not in self.class_names)
                self.class_names += new
            answer = Answer(labels, bool(event.get("unsure")))
            self._answers.setdefault(name, []).append(answer)
            self._order.append(name)

    def answer(self, name: str) -> Answer | None:
        """Returns the last answer on a recording, if it has any."""
        found = self._answers.get(name)
        return found[-1] if found else None

    def version(self, name: str) -> int:
        """Counts the events of a recording, so that a window can tell if it is late."""
        return self._events.get(name, 0)

    @property
    def labelled(self) -> dict[str, tuple[str, ...]]:
        """The labels of the recordings that have some, in the order of first answers.

        Tags may be empty: the recording has none of them.
        """
        with self.lock:
            last = {name: found[-1] for name, found in self._answers.items() if found}
        return {
            name: one.labels for name, one in last.items() if one.labels is not None
        }

    @property
    def latest(self) -> str | None:
        """The recording that was answered last."""
        return self._order[-1] if self._order else None

    def waiting(self) -> list[str]:
        """Returns the recordings of all batches that have no answer, in order.

        A skipped recording waits again if a later batch asks for it.
        """
        asked: dict[str, int] = {}
        for batch in self.batches:
            for name in batch:
                asked[name] = asked.get(name, 0) + 1
        with self.lock:
            return [
                name
                for name, times in asked.items()
                if not (found := self._answers.get(name))
                or (found[-1] == Answer(None) and len(found) < times)
            ]
