"""The command ``audiodd report``."""

from collections.abc import Sequence

from audiodd_jax.commands.common import cache_dir, keep_compiled, table
from audiodd_jax.flags import parse


def report(argv: Sequence[str]) -> None:
    """Makes tables, figures, sounds and a page to look at from run directories."""
    values, folders = parse.parse_arguments("report", argv)
    from audiodd_jax.commands import report as report_lib
    from audiodd_jax.report.gallery import Options

    keep_compiled(cache_dir(values))
    options = Options(
        values.galleries,
        values.per_class,
        values.iterations,
        values.seed,
        values.all_sounds,
    )
    made = report_lib.write(folders, values.out, options, cache_dir(values))
    for shown in made.shown:
        print(f"{shown.gallery.title}: {shown.gallery.caption}")
    for note in (note for shown in made.shown for note in shown.notes):
        print(note)
    count = sum(not run.result for run in made.runs)
    unfinished = f", {count} of them unfinished" * (count > 0)
    rows = [
        ("runs", f"{len(made.runs)}{unfinished}"),
        ("page", str(made.out / "index.html")),
        ("tables", f"{made.out / 'tables'} (Markdown, CSV, LaTeX)"),
        ("figures", str(made.out / "figures")),
    ]
    rows += [("sounds", str(shown.folder)) for shown in made.shown]
    table(rows)
