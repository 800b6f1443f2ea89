"""Figures of a run: curves, the coreset before and after, confusion matrices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from audiodd_jax.features.metric import ACCURACY
from audiodd_jax.training.scores import Evaluation

# Most spectrograms per class in a figure, before and after each.
MAX_COLUMNS = 8
# Most classes in a figure of a coreset.
MAX_ROWS = 25
# Most classes that are named at the axes of a confusion matrix.
_MAX_TICKS = 120
# Most characters of a class name.
_MAX_NAME = 40
# Most classes for which a confusion matrix is annotated with numbers.
MAX_WRITTEN_CLASSES = 20


def plain(text: str, most: int = 120) -> str:
    """Text of users for matplotlib: no formulas or control characters, not too long."""
    text = "".join(c if c.isprintable() else " " for c in text)
    if len(text) > most:
        text = text[:most] + "..."
    return text.replace("$", r"\$")


def blank(width: float, height: float) -> Any:
    """An empty ``matplotlib.figure.Figure`` of this size in inches."""
    # Matplotlib takes half a second to import, and most commands draw nothing.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def curves(
    history: Sequence[dict[str, Any]],
    title: str,
    path: Path,
    metric: str = ACCURACY,
) -> None:
    """Draws loss and accuracies against steps.

    Args:
      history: rows of ``metrics.jsonl``.
      title: of the figure.
      path: of the PNG.
      metric: what the accuracies are, in words.
    """
    figure = blank(9.0, 3.4)
    left, right = figure.subplots(1, 2)

    def line(
        axes: Any, name: str, label: str, scale: float = 1.0, **style: Any
    ) -> None:
        points = [(row["step"], scale * row[name]) for row in history if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **style)

    line(left, "loss", "batch", color="C0")
    line(left, "validation_loss", "validation", color="C1", marker="o", ms=3)
    left.set(xlabel="step", ylabel="loss")
    line(right, "batch_accuracy", "batch", 100.0, color="C0")
    line(
        right, "validation_accuracy", "validation", 100.0, color="C1", marker="o", ms=3
    )
    best = [row for row in history if row.get("best")]
    if best and "validation_accuracy" in best[-1]:
        right.axvline(best[-1]["step"], color="C2", ls=":", label="best")
    right.set(xlabel="step", ylabel=f"{metric} (%)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False)
    figure.suptitle(plain(title))
    figure.savefig(path, dpi=120)


def progress(
    histories: Mapping[str, Sequence[Sequence[dict[str, Any]]]],
    title: str,
    path: Path,
    metric: str = ACCURACY,
) -> None:
    """Draws validation accuracy against steps, one line per name (mean over seeds).

    Args:
      histories: by name, the rows of ``metrics.jsonl`` of each seed.
      title: of the figure.
      path: of the PNG.
      metric: what the accuracies are, in words.
    """
    figure = blank(8.0, 4.5)
    axes = figure.subplots()
    for i, (name, seeds) in enumerate(histories.items()):
        at: dict[int, list[float]] = {}
        for rows in seeds:
            for row in rows:
                if "validation_accuracy" in row:
                    at.setdefault(row["step"], []).append(row["validation_accuracy"])
        if len(at) < 2:
            continue
        steps = sorted(at)
        values = [100 * sum(at[step]) / len(at[step]) for step in steps]
        axes.plot(steps, values, marker="osv^DPX"[i % 7], ms=4, label=plain(name))
    axes.set(xlabel="step", ylabel=f"validation {metric} (%)")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle(plain(title))
    figure.savefig(path, dpi=120)


def coreset_grid(
    before: Float[np.ndarray, "s f t"],
    after: Float[np.ndarray, "s f t"],
    class_names: Sequence[str],
    seconds: float,
    title: str,
    path: Path,
    names: tuple[str, str] = ("start", "distilled"),
) -> None:
    """Draws a coreset as a grid of spectrograms, one row per class.

    Args:
      before: initial spectrograms in dB, in class order.
      after: learnt spectrograms.
      class_names: ``c`` names; ``s`` is a multiple of ``c``.
      seconds: length of a clip.
      title: of the figure.
      path: of the PNG.
      names: of the left and right halves.
    """
    per_class = before.shape[0] // len(class_names)
    rows = min(len(class_names), MAX_ROWS)
    columns = min(per_class, MAX_COLUMNS)
    f, t = before.shape[1:]
    # Cells have the aspect ratio of a spectrogram, within limits.
    width = 1.1 if columns > 1 else 2.2
    height = width * min(1.0, max(0.45, f / t))
    figure = blank(max(4.5, 2 * columns * width + 2.2), rows * height + 1.0)
    # Before, a gap, after: in one grid, so that all cells have the same size.
    grid = figure.subplots(
        rows,
        2 * columns + 1,
        squeeze=False,
        gridspec_kw={"width_ratios": [1] * columns + [0.15] + [1] * columns},
    )
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0)
    drawn = slice(0, rows * per_class)
    shown_values = np.concatenate([before[drawn], after[drawn]])
    low, high = np.percentile(shown_values, [1, 99.8])
    for row in range(rows):
        grid[row, columns].set_axis_off()
        for column in range(columns):
            clip = row * per_class + column
            for axes, images in (
                (grid[row, column], before),
                (grid[row, columns + 1 + column], after),
            ):
                picture = axes.imshow(
                    images[clip],
                    origin="lower",
                    aspect="auto",
                    cmap="magma",
                    vmin=low,
                    vmax=high,
                )
                axes.set_xticks([])
                axes.set_yticks([])
        grid[row, 0].set_ylabel(
            plain(class_names[row], _MAX_NAME),
            rotation=0,
            ha="right",
            va="center",
            fontsize=8,
        )
    shown = f" ({columns} of {per_class} per class)" if columns < per_class else ""
    grid[0, 0].set_title(names[0] + shown, loc="left", fontsize=10)
    grid[0, columns + 1].set_title(names[1], loc="left", fontsize=10)
    bar = figure.colorbar(picture, ax=grid, shrink=0.5, pad=0.02)
    bar.set_label("dB", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    if rows < len(class_names):
        title = f"{title}, {rows} of {len(class_names)} classes"
    figure.suptitle(f"{plain(title)}: {f} mel bins x {seconds:.3g} s", fontsize=11)
    figure.savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.1)


def by_class(
    scores: Evaluation, class_names: Sequence[str], title: str, path: Path
) -> None:
    """Draws the confusion matrix of all seeds, or the average precision of each tag.

    Args:
      scores: of classes or tags.
      class_names: ``c`` names.
      title: of the figure.
      path: of the PNG.
    """
    if scores.tags is None:
        confusion(scores.confusions.sum(0), class_names, title, path)
        return
    classes = len(class_names)
    figure = blank(6.0, min(1.5 + 0.25 * classes, 16.0))
    axes = figure.subplots()
    axes.barh(range(classes), 100 * np.nan_to_num(scores.per_class), color="C0")
    axes.set_ylim(classes - 0.5, -0.5)
    if classes <= _MAX_TICKS:
        names = [plain(name, _MAX_NAME) for name in class_names]
        small = max(3.5, min(9.0, 200.0 / max(classes, 1)))
        axes.set_yticks(range(classes), names, fontsize=small)
    axes.set(xlabel="average precision (%)", xlim=(0, 100))
    axes.grid(alpha=0.3, axis="x")
    figure.suptitle(plain(title))
    figure.savefig(path, dpi=120)


def confusion(
    counts: Int[np.ndarray, "c c"], class_names: Sequence[str], title: str, path: Path
) -> None:
    """Draws a confusion matrix.

    Args:
      counts: clips by class (rows) and prediction (columns).
      class_names: ``c`` names.
      title: of the figure.
      path: of the PNG.
    """
    classes = len(class_names)
    total = counts.sum(1, keepdims=True)
    shares = 100 * np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    side = min(3.0 + 0.42 * classes, 16.0)
    small = max(3.5, min(9.0, 200.0 / max(classes, 1)))
    figure = blank(side + 1.0, side)
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    ticks = range(classes)
    names = [plain(name, _MAX_NAME) for name in class_names]
    if classes <= _MAX_TICKS:
        axes.set_xticks(ticks, names, rotation=60, ha="right", fontsize=small)
        axes.set_yticks(ticks, names, fontsize=small)
    axes.set(xlabel="predicted", ylabel="class of the clip")
    if classes <= MAX_WRITTEN_CLASSES:
        for row, column in zip(*np.nonzero(counts), strict=True):
            share = shares[row, column]
            axes.text(
                column,
                row,
                f"{share:.0f}" if share >= 0.5 else "<1",
                ha="center",
                va="center",
                fontsize=small,
                color="white" if share > 50 else "black",
            )
    bar = figure.colorbar(picture, ax=axes, shrink=0.7)
    bar.set_label("of the class's clips (%)")
    figure.suptitle(plain(title))
    figure.savefig(path, dpi=120)
