"""Fixtures shared by the tests of exports."""

import importlib.util
import sys
import types

import pytest


@pytest.fixture
def load(tmp_path, monkeypatch):
    """``datasets.load_dataset`` without a network or the user's cache."""
    datasets = pytest.importorskip("datasets", reason="no Hugging Face datasets")
    datasets.disable_progress_bars()
    if importlib.util.find_spec("torchcodec") is None:
        # The library imports its encoder before it sees that a path needs none.
        for name in ("torchcodec", "torchcodec.encoders"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules["torchcodec.encoders"].AudioEncoder = None

    def load(*arguments, **options):
        found = datasets.load_dataset(
            *map(str, arguments), split="train", cache_dir=str(tmp_path), **options
        )
        if "audio" in found.column_names:
            # Decoded by soundfile here: the library's own decoder is another package.
            rate = found.features["audio"].sampling_rate
            found = found.cast_column("audio", datasets.Audio(rate, decode=False))
        return found

    return load
