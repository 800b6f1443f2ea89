import matplotlib.image
import numpy as np
import pytest

from audiodd_jax.report import figures

HISTORY = [
    {"step": 0, "validation_accuracy": 0.2, "validation_loss": 0.3, "best": True},
    {"step": 10, "loss": 0.2, "batch_accuracy": 0.5},
    {"step": 20, "loss": 0.1, "batch_accuracy": 0.7, "validation_accuracy": 0.6},
]


@pytest.fixture(autouse=True)
def _all_rows(monkeypatch):
    """Undoes what other tests do to draw less."""
    monkeypatch.setattr(figures, "MAX_ROWS", 25)


def ink(path):
    """How much of a picture is not background."""
    picture = matplotlib.image.imread(path)
    return float((np.abs(picture[..., :3] - 1).max(axis=-1) > 0.1).mean())


@pytest.mark.parametrize("history", [HISTORY, HISTORY[1:2], [{"step": 0}]])
def test_curves(tmp_path, history):
    figures.curves(history, "title", tmp_path / "curves.png")
    assert ink(tmp_path / "curves.png") > 0.005


@pytest.mark.parametrize(("per_class", "classes"), [(1, 2), (3, 5), (50, 3), (1, 50)])
def test_coreset_grid(tmp_path, per_class, classes):
    rng = np.random.default_rng(0)
    before = rng.uniform(-60, 0, (per_class * classes, 8, 16)).astype(np.float32)
    names = [f"class {i}" for i in range(classes)]
    path = tmp_path / "grid.png"
    figures.coreset_grid(before, before + 3, names, 1.0, "title", path)
    assert ink(path) > 0.3
    height, width = matplotlib.image.imread(path).shape[:2]
    assert max(height, width) < 10_000


@pytest.mark.parametrize("name", ["Ba$$in", "$5 - $10", "a\nb", "x" * 400, r"$\frac{"])
def test_class_names_are_drawn_as_text(name, tmp_path):
    images = np.random.default_rng(0).standard_normal((2, 8, 8)) - 20
    figures.coreset_grid(images, images, (name, "b"), 1.0, name, tmp_path / "a.png")
    figures.confusion(np.eye(2, dtype=int), (name, "b"), name, tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 1000


def test_many_classes_are_drawn_in_part(tmp_path, monkeypatch):
    drawn, blank = [], figures.blank
    monkeypatch.setattr(
        figures, "blank", lambda *size: drawn.append(blank(*size)) or drawn[-1]
    )
    names = tuple(f"class {i}" for i in range(300))
    images = np.zeros((300, 8, 8)) + np.arange(8)
    figures.coreset_grid(images, images, names, 1.0, "many", tmp_path / "a.png")
    figures.confusion(np.eye(300, dtype=int), names, "many", tmp_path / "b.png")
    grid, confusion = drawn
    # The grid shows the first classes, and its title gives their number.
    shown = [axes.get_ylabel() for axes in grid.axes if "class" in axes.get_ylabel()]
    assert shown == list(names[: figures.MAX_ROWS])
    assert f"many, {figures.MAX_ROWS} of 300 classes" in grid.get_suptitle()
    # The matrix has all classes, but no room for their names and shares.
    matrix = confusion.axes[0]
    assert matrix.images[0].get_array().shape == (300, 300)
    assert len(matrix.texts) == 0
    labels = [label.get_text() for label in matrix.get_yticklabels()]
    assert not set(labels) & set(names)
