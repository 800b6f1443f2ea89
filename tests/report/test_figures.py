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
    of = np.repeat(np.arange(classes), per_class)
    figures.coreset_grid(before, before + 3, of, names, 1.0, "title", path)
    assert ink(path) > 0.3
    height, width = matplotlib.image.imread(path).shape[:2]
    assert max(height, width) < 10_000


@pytest.mark.parametrize("name", ["Ba$$in", "$5 - $10", "a\nb", "x" * 400, r"$\frac{"])
def test_class_names_are_drawn_as_text(name, tmp_path):
    images = np.random.default_rng(0).standard_normal((2, 8, 8)) - 20
    of, path = np.arange(2), tmp_path / "a.png"
    figures.coreset_grid(images, images, of, (name, "b"), 1.0, name, path)
    figures.confusion(np.eye(2, dtype=int), (name, "b"), name, tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 1000


@pytest.fixture
def drawn(monkeypatch):
    """The figures that a test draws."""
    found, blank = [], figures.blank
    monkeypatch.setattr(
        figures, "blank", lambda *size: found.append(blank(*size)) or found[-1]
    )
    return found


def test_a_coreset_has_three_panels_with_times_and_a_row_per_class(tmp_path, drawn):
    before = np.arange(4.0).repeat(4 * 8).reshape(4, 4, 8)
    of, names = np.array([0, 2, 2, 0]), ("a", "b", "c")
    figures.coreset_grid(
        before, before + of[:, None, None], of, names, 0.5, "t", tmp_path / "a.png"
    )
    panels = drawn[0].axes[:3]
    titles = [axes.get_title(loc="left") for axes in panels]
    assert titles == ["start", "distilled", "distilled minus start"]
    for axes in panels:
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.5"]
        assert axes.get_xlabel() or axes.xaxis.label.get_text() == "time (s)"
    assert [label.get_text() for label in panels[0].get_yticklabels()] == list(names)
    # Rows of five bins and columns of nine frames, gaps included.
    tiles = [axes.images[0].get_array().filled(-1) for axes in panels]
    assert tiles[0][[0, 5, 10]][:, [0, 9]].tolist() == [[0, 3], [-1, -1], [1, 2]]
    assert tiles[2][[0, 5, 10]][:, [0, 9]].tolist() == [[0, 0], [-1, -1], [2, 2]]


def test_low_frequencies_are_at_the_bottom_of_a_tile():
    image = np.arange(3.0)[:, None].repeat(2, 1)
    assert figures._tiles([image[None]], 1, (1, 1))[:, 0].tolist() == [2, 1, 0]


def test_many_classes_are_drawn_in_part(tmp_path, drawn):
    names = tuple(f"class {i}" for i in range(300))
    images = np.zeros((300, 8, 8)) + np.arange(8)
    of, path = np.arange(300), tmp_path / "a.png"
    figures.coreset_grid(images, images, of, names, 1.0, "many", path)
    figures.confusion(np.eye(300, dtype=int), names, "many", tmp_path / "b.png")
    grid, confusion = drawn
    # The grid shows the first classes, and its title gives their number.
    shown = [label.get_text() for label in grid.axes[0].get_yticklabels()]
    assert shown == list(names[: figures.MAX_ROWS])
    assert f"many, {figures.MAX_ROWS} of 300 classes" in grid.get_suptitle()
    # The matrix has all classes, but no room for their names and shares.
    matrix = confusion.axes[0]
    assert matrix.images[0].get_array().shape == (300, 300)
    assert len(matrix.texts) == 0
    labels = [label.get_text() for label in matrix.get_yticklabels()]
    assert not set(labels) & set(names)
