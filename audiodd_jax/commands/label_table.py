"""Questions and answers in a table, which a person fills in with any program.

A table that holds what a person wrote is renamed once all of it is in the journal, and
never overwritten.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from audiodd_jax.active_learning.session import Session
from audiodd_jax.data import tables
from audiodd_jax.data.tables import TAG_SEPARATOR
from audiodd_jax.errors import UserError, counted
from audiodd_jax.runtime.files import write_atomically

TABLE, REVIEW = "to_label.csv", "review.csv"
# Answers that are no class.
UNSURE, NO_TAGS = "?", "-"
# Most rows that a message names.
_NAMED = 5


def ask(session: Session) -> Path | None:
    """Takes the answers in ``to_label.csv``, and writes the next batch there.

    Returns the table, or None if no question is left.

    Raises:
      UserError: rows without an answer, or with an impossible one; all others are kept.
    """
    path = session.workdir / TABLE
    if path.exists():
        _take(session, path, session.waiting)
        _put_away(path)
    names = session.waiting or session.next_batch()
    if not names:
        return None
    rows = [(str(i), name, "") for i, name in enumerate(names, start=1)]
    _write(path, ("order", "path", "label"), rows)
    return path


def review(session: Session) -> Path | None:
    """Takes the answers in ``review.csv``, or writes the contested ones there.

    Returns the table, or None if no answer is contested.

    Raises:
      UserError: rows without an answer, or with an impossible one; all others are kept.
    """
    path = session.workdir / REVIEW
    if path.exists():
        _take(session, path, ())
        _put_away(path)
    rows = [
        (name, TAG_SEPARATOR.join(session.journal.labelled[name]), predicted, "")
        for name, predicted in session.contested()
    ]
    if not rows:
        return None
    _write(path, ("path", "answer", "networks", "label"), rows)
    return path


def _take(session: Session, path: Path, waiting: Sequence[str]) -> None:
    """Moves the answers of a table into the journal.

    Raises:
      UserError: rows without an answer, or with an impossible one; all others are kept.
    """
    rows = tables.read(path, ("path", "label"), ("label",))
    empty, wrong = [], []
    for row in rows:
        name, text = row["path"], row["label"].strip()
        if not text:
            empty.append(f"line {row.line} ({name})")
            continue
        try:
            _answer(session, name, text, is_review=path.name == REVIEW)
        except UserError as error:
            wrong.append(f"line {row.line}: {error}")
    if wrong:
        raise UserError(f"{path}, {wrong[0]}")
    listed = {row["path"] for row in rows}
    empty += [f"no line for {name}" for name in waiting if name not in listed]
    if empty:
        more = f" and {len(empty) - _NAMED} more" * (len(empty) > _NAMED)
        raise UserError(
            f"{path}: {counted(len(empty), 'recording has', 'recordings have')} no "
            f"label: {', '.join(empty[:_NAMED])}{more}; fill them in ({UNSURE} if "
            "nobody can tell), and run the same command again"
        )


def _answer(session: Session, name: str, text: str, is_review: bool) -> None:
    """Appends an answer to the journal, unless it repeats the last."""
    before = session.journal.answer(name)
    if text == UNSURE:
        if not (before and before.is_unsure):
            session.unsure(name)
        return
    labels: Sequence[str] = [text]
    if session.config.session.tags:
        split = [] if text == NO_TAGS else text.split(TAG_SEPARATOR)
        labels = [part.strip() for part in split if part.strip()]
    if before is None or before.labels is None or {*before.labels} != {*labels}:
        session.answer(name, labels)
    if is_review:
        session.keep(name)


def _put_away(path: Path) -> None:
    """Renames a table whose answers are in the journal to a name that is free."""
    number = 1
    while (new := path.with_name(f"{path.stem}-{number:03d}.csv")).exists():
        number += 1
    path.rename(new)


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    if path.exists():  # saved again while the network was trained
        _put_away(path)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *rows])
    write_atomically(path, text.getvalue())
