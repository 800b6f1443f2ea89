"""The start of a sweep: its folder is locked, and finished runs are left alone."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from audiodd_jax.errors import UserError
from audiodd_jax.runtime.files import remove_unfinished
from audiodd_jax.runtime.locks import hold_folder
from audiodd_jax.sweep import run_process, status
from audiodd_jax.sweep.plan import Planned


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Locks the sweep's folder for one process.

    Raises:
      UserError: another sweep holds it, or it is a run or a file.
    """
    if (workdir / "config.json").exists():
        raise UserError(f"{workdir} holds a run; a sweep needs its own folder")
    lock = hold_folder(workdir, ".sweep", "the sweep's folder")
    if lock is None:
        raise UserError(f"another sweep is running in {workdir}")
    try:
        remove_unfinished(workdir)
        yield
    finally:
        lock.release()


def queue(plans: Sequence[Planned], workdir: Path) -> list[Planned]:
    """Records the unfinished runs as waiting, and returns them.

    Raises:
      UserError: a run of the same name was started with other flags.
    """
    unfinished = []
    for plan, state in zip(plans, status.read(plans, workdir), strict=True):
        if state.flags and state.flags != plan.flags:
            before, now = set(state.flags), set(plan.flags)
            removed = ", ".join(sorted(before - now)) or "fewer flags"
            added = ", ".join(sorted(now - before)) or "fewer"
            raise UserError(
                f"run {plan.name} was started with {removed} and now has {added}; "
                "choose another --workdir or another name"
            )
        if not run_process.is_finished(workdir, plan):
            run_process.record(workdir, plan.name, "queued")
            unfinished.append(plan)
        elif state.what != "finished":
            run_process.record(workdir, plan.name, "finished")
    return unfinished
