"""``audiodd label``: asks a person to label the recordings that teach most."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from audiodd_jax.active_learning.session import Session
from audiodd_jax.command_line import CommandLine, table
from audiodd_jax.commands import label_page, label_table
from audiodd_jax.commands.common import start
from audiodd_jax.errors import UserError
from audiodd_jax.flags import for_session


def run(line: CommandLine) -> None:
    """Asks in the way that the command line says, and prints what is known so far."""
    flags, config = line.flags, line.configure_defaults()
    if flags.ask not in (None, "csv") or bool(flags.ask) == flags.serve:
        raise UserError("audiodd label asks by --serve, or by --ask=csv")
    if flags.serve:
        label_page.libraries()
    sounds = Path(line.arguments[0])
    workdir = Path(flags.workdir or Path("runs") / f"{sounds.absolute().name}-label")
    start(flags, config.data)
    with Session(config, workdir) as session:
        if flags.serve:
            label_page.serve(session, flags.port, flags.review)
        elif flags.review:
            path = label_table.review(session)
        else:
            path = label_table.ask(session)
        rows = summary(session)
    if flags.ask:
        done = "no contested answers" if flags.review else "all answers are in"
        action = f"fill in the column label of {path}, and run the same command again"
        rows.append(("next", action if path else done))
    table(rows)


def summary(session: Session) -> list[tuple[str, str]]:
    """Describes a session: answers, accuracy, advice and what to do with it."""
    rows = [("answers", f"{session.answered:,} of {session.budget:,}")]
    rows += [("classes", ", ".join(session.class_names))] * bool(session.class_names)
    if session.skipped:
        rows.append(("cannot be decoded", f"{len(session.skipped):,} recordings"))
    if session.rounds:
        row = session.rounds[-1]
        if "validation_accuracy" in row:
            names = ("validation_accuracy", "validation_low", "validation_high")
            mean, low, high = (f"{100 * row[name]:.1f}" for name in names)
            text = (
                f"{mean} % (95 %: {low} to {high} %) on {row['validated']} recordings"
            )
            rows.append((f"validation {row['measure']}", text))
        rows.append(("advice", session.advice()))
    rows.append(("session", str(session.workdir)))
    rows.append(("distil", f"audiodd distill --labelled={session.workdir}"))
    return rows


class Batch:
    """Recordings to label.

    Attributes:
      names: their paths below the folder of sounds.
      paths: their files.
    """

    def __init__(self, session: Session, names: Sequence[str]):
        self._session = session
        self.names = tuple(names)
        self.paths = tuple(session.clips[name].path for name in names)

    def answer(self, labels: Sequence[str | Sequence[str] | None]) -> None:
        """Keeps an answer per recording: a class, tags, or None for "cannot tell".

        Raises:
          UserError: another number of answers, or an impossible one; the answers before
            it are kept.
        """
        if len(labels) != len(self.names):
            raise UserError(
                f"the batch has {len(self.names)} recordings, not {len(labels)}"
            )
        for name, label in zip(self.names, labels, strict=True):
            if label is None:
                self._session.unsure(name)
            else:
                self._session.answer(name, [label] if isinstance(label, str) else label)


def label_rounds(
    sounds: str | Path, workdir: str | Path, **changes: object
) -> Iterator[Batch]:
    """Yields batches of recordings to label, the next after the answers to the last.

        for batch in audiodd_jax.label_rounds("sounds", "runs/mine", batch=20):
            batch.answer([ask_someone(path) for path in batch.paths])

    The same call continues a session. Each answer is on the disk once ``answer``
    returns.

    Args:
      sounds: folder of recordings.
      workdir: folder of the session.
      **changes: flags of ``audiodd label`` and settings, as in ``for_active``.

    Raises:
      UserError: bad settings or recordings, or a batch that was not answered.
    """
    config = for_session(str(sounds), **changes)
    with Session(config, Path(workdir)) as session:
        while names := session.waiting or session.next_batch():
            batch = Batch(session, names)
            yield batch
            if left := [name for name in batch.names if name in session.waiting]:
                raise UserError(
                    f"{len(left)} of {len(names)} recordings have no answer, such as "
                    f"{left[0]}: call batch.answer with a label for each"
                )
