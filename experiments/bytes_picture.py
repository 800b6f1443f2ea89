"""Draws accuracy against bytes from the rows of ``bytes_table.py``, and its table.

    python experiments/bytes_picture.py --split=test --picture=bytes.png \
        runs/bytes-digits.jsonl runs/bytes-urban.jsonl

One panel per file, with a line per arm over its budgets; shades are one standard
deviation over seeds. Prints the same numbers as a Markdown table.
"""

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from absl import app, flags

from audiodd_jax.commands.main import explained
from audiodd_jax.errors import UserError
from audiodd_jax.report import figures

_SPLIT = flags.DEFINE_enum("split", "validation", ["validation", "test"], "clips")
_PICTURE = flags.DEFINE_string("picture", "", "file of the picture")

# Arms in the order of the table, and their colours.
COLOURS = {
    "coreset": "C3",
    "random clips": "C0",
    "plain clips": "C9",
    "hard labels": "C2",
    "audio": "C7",
    "all clips": "k",
}


class Point(NamedTuple):
    """The mean and deviation over seeds of an arm at a budget, in %."""

    dataset: str
    arm: str
    budget: str
    bytes: int
    words: str
    mean: float
    std: float
    seeds: int


def points(rows: list[dict[str, Any]], split: str) -> list[Point]:
    """Returns the scores on a split's clips, by arm and bytes."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        if split in row and not row["fixed"]:
            groups.setdefault((row["arm"], row["budget"], row["bytes"]), []).append(row)
    found = []
    for (arm, budget, size), group in groups.items():
        values = [100 * row[split] for row in group]
        std = statistics.stdev(values) if len(values) > 1 else 0.0
        given = (group[0]["dataset"], arm, budget, size, group[0]["words"])
        found.append(Point(*given, statistics.fmean(values), std, len(values)))
    order = list(COLOURS)
    return sorted(found, key=lambda p: (p.bytes, order.index(p.arm)))


def draw(panels: dict[str, list[Point]], split: str, path: Path) -> None:
    """Draws a panel per dataset, with accuracies on a split's clips."""
    figure = figures.blank(4.2 * len(panels), 3.8)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (title, found) in zip(axes, panels.items(), strict=True):
        for arm, colour in COLOURS.items():
            line = [point for point in found if point.arm == arm]
            if not line:
                continue
            if arm == "all clips":
                panel.axhline(line[0].mean, color=colour, ls=":", label=arm)
                continue
            sizes, means = [p.bytes / 1000 for p in line], [p.mean for p in line]
            panel.plot(sizes, means, color=colour, marker="o", ms=3, label=arm)
            low, high = [p.mean - p.std for p in line], [p.mean + p.std for p in line]
            panel.fill_between(sizes, low, high, color=colour, alpha=0.15, lw=0)
        panel.set(xscale="log", xlabel="kB", title=figures.plain(title))
        panel.grid(alpha=0.3, which="both")
    axes[0].set_ylabel(f"{split} accuracy (%)")
    axes[-1].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=120)


def main(arguments):
    panels = {}
    for path in map(Path, arguments[1:]):
        if not path.is_file():
            raise UserError(f"{path} does not exist: bytes_table.py writes such files")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        if found := points(rows, _SPLIT.value):
            panels[found[0].dataset] = found
    if not panels:
        raise UserError(f"no row of the {_SPLIT.value} clips in these files")
    print("| dataset | budget | bytes | learns from | stored | accuracy | seeds |")
    print("|---|---|---|---|---|---|---|")
    for p in (point for found in panels.values() for point in found):
        score = f"{p.mean:.1f} ± {p.std:.1f}" if p.seeds > 1 else f"{p.mean:.1f}"
        cells = (p.dataset, p.budget, f"{p.bytes:,}", p.arm, p.words, score, p.seeds)
        print(f"| {' | '.join(map(str, cells))} |")
    if _PICTURE.value:
        draw(panels, _SPLIT.value, Path(_PICTURE.value))


if __name__ == "__main__":
    explained(lambda: app.run(main))
