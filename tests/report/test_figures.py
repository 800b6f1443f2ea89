import matplotlib.image
import numpy as np
import pytest

from audiodd_jax.report import figures

HISTORY = [
    {"step": 0, "validation_accuracy": 0.2, "validation_loss": 0.3, "best": True},
    {"step": 10, "loss": 0.2, "batch_accuracy": 0.5},
    {"step": 20, "loss": 0.1, "batch_accuracy": 0.7, "validation_accuracy": 0.6},
]


def ink(path):
    """How much of a picture is not background."""
    picture = matplotlib.image.imread(path)
    return float((np.abs(picture[..., :3] - 1).max(axis=-1) > 0.1).mean())


@pytest.mark.parametrize("history", [HISTORY, HISTORY[1:2], [{"step": 0}]])
def test_curves(tmp_path, history):
    figures.curves(history, "title", tmp_path / "curves.png")
    assert ink(tmp_path / "curves.png") > 0.005


@pytest.mark.parametrize(("per_class", "classes"), [(1, 2), (3, 5), (50, 10), (1, 50)])
def test_coreset_grid(tmp_path, per_class, classes):
    rng = np.random.default_rng(0)
    before = rng.uniform(-60, 0, (per_class * classes, 8, 16)).astype(np.float32)
    names = [f"class {i}" for i in range(classes)]
    path = tmp_path / "grid.png"
    figures.coreset_grid(before, before + 3, names, 1.0, "title", path)
    assert ink(path) > 0.3
    height, width = matplotlib.image.imread(path).shape[:2]
    assert max(height, width) < 10_000
