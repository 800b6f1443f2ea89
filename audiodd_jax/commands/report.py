"""``audiodd report``: writes tables, figures, sounds and a web page about runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from audiodd_jax.command_line import CommandLine, table
from audiodd_jax.commands.common import keep_compiled
from audiodd_jax.config import DataConfig
from audiodd_jax.config.user_paths import local
from audiodd_jax.errors import UserError, named
from audiodd_jax.report import page
from audiodd_jax.report.gallery import Gallery, Options
from audiodd_jax.report.runs import Run, find
from audiodd_jax.runtime import mirror
from audiodd_jax.runtime.environment import standard_numerics
from audiodd_jax.runtime.files import exclusive, remove_unfinished


def run(line: CommandLine) -> None:
    """Reports as the command line says, and prints where the files are."""
    flags = line.flags
    keep_compiled(DataConfig(cache_dir=flags.cache_dir or ""))
    counts = (flags.galleries, flags.per_class, flags.iterations, flags.seed)
    options = Options(*counts, flags.all_sounds, flags.cache_dir or "")
    written = report(line.arguments, flags.out, options)
    for shown in written.shown:
        print(f"{shown.title}: {shown.caption}")
    for note in (note for shown in written.shown for note in shown.notes):
        print(note)
    missing = [run for run in written.runs if not run.result]
    for one in missing:
        print(f"{one.path.name} is without a result: {one.state or 'unfinished'}")
    unfinished = f", {len(missing)} of them unfinished" * bool(missing)
    rows = [
        ("runs", f"{len(written.runs)}{unfinished}"),
        ("page", str(written.out / "index.html")),
        ("tables", f"{written.out / 'tables'} (Markdown, CSV, LaTeX)"),
        ("figures", str(written.out / "figures")),
    ]
    rows += [("sounds", str(shown.folder)) for shown in written.shown]
    table(rows)


class Report(NamedTuple):
    """A written report: its folder, the runs in it, and the coresets on its page."""

    out: Path
    runs: list[Run]
    shown: list[Gallery]


@standard_numerics()
def report(
    folders: Sequence[str | Path], out: str | Path, options: Options | None = None
) -> Report:
    """Writes a report of all runs: ``index.html``, tables, figures and sounds.

    Args:
      folders: run directories, or folders with runs at any depth.
      out: folder of the report; an earlier report is replaced.

    Raises:
      UserError: no runs, a damaged file, or a bad option.
    """
    options = options or Options()
    for name in ("galleries", "per_class", "iterations"):
        if (value := getattr(options, name)) < 0:
            raise UserError(f"--{name} must be at least 0, not {value}")
    sources, out = list(map(local, folders)), local(out)
    for folder in (*sources, out):
        mirror.fetch(folder)
    runs = find(sources)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is not a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / ".report").exists():
        raise UserError(
            f"{out} is not empty and holds no report; choose another folder with --out"
        )
    # Not ``.lock``, which marks run directories.
    with exclusive(out / ".report", "writing a report there"), named(out):
        remove_unfinished(out)
        shown = page.write(runs, out, options)
    mirror.publish(out)
    return Report(out, runs, shown)
