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
    """Holds the sweep's folder for one process.

    Raises:
      UserError: another sweep holds it, or it is a run or a file.
    """
    if (workdir / "config.json").exists():
        raise UserError(f"{workdir} holds a run; a sweep needs a folder of its own")
    lock = hold_folder(workdir, ".sweep", "the sweep's folder")
    if lock is None:
        raise UserError(f"another sweep is running in {workdir}")
    try:
        remove_unfinished(workdir)
        yield
    finally:
        lock.release()


def begin(plans: Sequence[Planned], workdir: Path) -> list[Planned]:
    """The runs that are not finished, recorded as waiting.

    Raises:
      UserError: a run of the same name was started with other flags.
    """
    todo = []
    for plan, state in zip(plans, status.read(plans, workdir), strict=True):
        if state.flags and state.flags != plan.flags:
            one, other = set(state.flags) - set(plan.flags), set(plan.flags)
            there = ", ".join(sorted(one)) or "fewer flags"
            here = ", ".join(sorted(other - set(state.flags))) or "fewer"
            raise UserError(
                f"run {plan.name} was started with {there} and now has {here}; choose "
                "another --workdir or another name"
            )
        if run_process.is_finished(workdir, plan):
            if state.what != "finished":
                run_process.record(workdir, plan.name, "finished")
        else:
            run_process.record(workdir, plan.name, "queued")
            todo.append(plan)
    return todo
