"""The command ``audiodd report``."""

from collections.abc import Sequence

from audiodd_jax.commands.common import cache_dir, keep_compiled, table
from audiodd_jax.flags import parse


def report(argv: Sequence[str]) -> None:
    """Makes tables, figures, sounds and a page to look at from run directories."""
    values, places = parse.parse_arguments("report", argv)
    from audiodd_jax.commands import report as report_lib
    from audiodd_jax.commands import report_gallery

    keep_compiled(cache_dir(values))
    options = report_gallery.Options(
        *(values.galleries, values.per_class, values.iterations, values.seed),
        values.all_sounds,
    )
    found = report_lib.report(places, values.out, options, cache_dir(values))
    for gallery in found.galleries:
        print(f"{gallery.title}: {gallery.caption}")
    for note in found.notes:
        print(note)
    unfinished = f", {found.unfinished} of them unfinished" * (found.unfinished > 0)
    rows = [
        ("runs", f"{found.runs}{unfinished}"),
        ("page", str(found.page)),
        ("tables", f"{found.page.parent / 'tables'} (Markdown, CSV, LaTeX)"),
        ("figures", str(found.page.parent / "figures")),
    ]
    rows += [("sounds", str(folder)) for folder in found.sounds]
    table(rows)
