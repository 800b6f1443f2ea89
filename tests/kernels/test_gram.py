"""Matrices of an exact kernel in tiles: whole, interrupted and resumed."""

import contextlib
import logging
import signal

import jax
import numpy as np
import pytest

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.kernels import exact_matrix, infinite_width
from audiodd_jax.runtime.signals import Interrupted

CONFIG = RandomNetworkConfig(depth=1)


def inputs(b, seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((b, 4, 4, 1)).astype(np.float32)


def exact(x1, x2, kind="nngp", config=CONFIG):
    return jax.jit(infinite_width.make_kernel(config, kind))(x1, x2)


@pytest.fixture
def tiles(monkeypatch):
    """Counts the tiles of each call of the compiled program."""
    counts = []
    make = exact_matrix._make_compute

    def counted(*arguments):
        compute = make(*arguments)

        def call(starts, *rest):
            counts.append(len(starts))
            return compute(starts, *rest)

        return call

    monkeypatch.setattr(exact_matrix, "_make_compute", counted)
    return counts


def cut_after(monkeypatch, rounds):
    """Sends a signal after a number of rounds of tiles."""
    seen = []

    @contextlib.contextmanager
    def noted():
        def told():
            seen.append(None)
            return signal.SIGTERM if len(seen) >= rounds else 0

        yield told

    monkeypatch.setattr(exact_matrix, "deferred_signals", noted)


@pytest.mark.parametrize("kind", ["nngp", "ntk"])
@pytest.mark.parametrize("pairs", [5, 1000])
def test_tiles_add_up_to_the_whole(kind, pairs):
    x1, x2 = inputs(7), inputs(5, seed=2)
    found = exact_matrix.matrix(CONFIG, kind, x1, x2, pairs=pairs)
    np.testing.assert_allclose(found, exact(x1, x2, kind), rtol=1e-5)


@pytest.mark.parametrize("pairs", [4, 0])
def test_a_gram_matrix_is_symmetric_and_no_tile_is_computed_twice(pairs, tiles):
    x = inputs(7)
    found = exact_matrix.matrix(CONFIG, "nngp", x, pairs=pairs)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(found, exact(x, x), rtol=1e-5)
    assert sum(tiles) == (4 * 5 // 2 if pairs else 1)


@pytest.mark.parametrize("is_gram", [True, False])
def test_a_resumed_matrix_matches_an_uninterrupted_one(
    is_gram, tmp_path, monkeypatch, tiles
):
    x1, x2 = inputs(9), None if is_gram else inputs(8, seed=2)
    call = lambda folder: exact_matrix.matrix(
        CONFIG, "ntk", x1, x2, folder=folder, pairs=4
    )
    whole = call(tmp_path / "whole")
    number = sum(tiles)
    with monkeypatch.context() as patch:
        cut_after(patch, 3)
        with pytest.raises(Interrupted, match="by SIGTERM after tile 3"):
            call(tmp_path / "cut")
    tiles.clear()
    np.testing.assert_array_equal(call(tmp_path / "cut"), whole)
    assert sum(tiles) == number - 3
    tiles.clear()
    np.testing.assert_array_equal(call(tmp_path / "cut"), whole)
    assert not tiles


def test_finished_tiles_are_saved_at_once(tmp_path, monkeypatch, tiles):
    """A kill, which cannot be handled, loses only seconds of work."""
    monkeypatch.setattr(exact_matrix, "_SAVE_SECONDS", 0.0)
    x, calls = inputs(6), []

    def dies(path, **arrays):
        save(path, **arrays)
        calls.append(path)
        if len(calls) == 2:
            raise MemoryError

    save = exact_matrix.save_npz
    monkeypatch.setattr(exact_matrix, "save_npz", dies)
    call = lambda: exact_matrix.matrix(CONFIG, "nngp", x, folder=tmp_path, pairs=4)
    with pytest.raises(MemoryError):
        call()
    tiles.clear()
    np.testing.assert_allclose(call(), exact(x, x), rtol=1e-5)
    assert sum(tiles) == 6 - 2


def test_other_inputs_and_settings_are_not_mixed_up(tmp_path):
    x1, x2 = inputs(3), inputs(3, seed=2)
    kept = lambda *arguments, config=CONFIG: exact_matrix.matrix(
        config, *arguments, folder=tmp_path
    )
    kept("nngp", x1)
    cases = [("ntk", x1), ("nngp", x2), ("nngp", x1, x2), ("nngp", x2, x1)]
    for kind, a, *b in cases:
        other = b[0] if b else a
        np.testing.assert_allclose(kept(kind, a, *b), exact(a, other, kind), rtol=1e-5)
    for changes in ({"bias_std": 0.2}, {"weight_variance": 1.0}, {"depth": 2},
                    {"readout": "time_mean"}):  # fmt: skip
        other = RandomNetworkConfig(**{"depth": 1, **changes})
        np.testing.assert_allclose(
            kept("nngp", x1, config=other), exact(x1, x1, config=other), rtol=1e-5
        )
    files = len(list(tmp_path.iterdir()))
    assert files == 9
    # These settings do not affect the kernel.
    kept("nngp", x1, config=RandomNetworkConfig(depth=1, width=3, readout="dense"))
    assert len(list(tmp_path.iterdir())) == files


def test_a_damaged_file_is_computed_again(tmp_path, caplog):
    x = inputs(3)
    whole = exact_matrix.matrix(CONFIG, "nngp", x, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        again = exact_matrix.matrix(CONFIG, "nngp", x, folder=tmp_path)
    np.testing.assert_array_equal(again, whole)
    assert "is damaged and is computed again" in caplog.text


def test_pairs_are_counted_once():
    assert exact_matrix.count_pairs(4, 5) == 20
    assert exact_matrix.count_pairs(4) == 10
