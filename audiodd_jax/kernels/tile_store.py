"""A matrix that is computed tile by tile, and saved so that it can be resumed."""

import logging
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from audiodd_jax.runtime.files import DAMAGE, load_npz, remove_unfinished, save_npz

_log = logging.getLogger(__name__)

# Least time between two writes of the file.
_SAVE_SECONDS = 30.0


class Tile(NamedTuple):
    """The first row and column of a rectangle of the matrix."""

    row: int
    column: int


class TileStore:
    """A float32 matrix in tiles; entries that are not computed yet are NaN.

    Args:
      file: where finished tiles are saved and loaded from; None: memory only.
      shape: shape of the matrix.
      sides: shape of a tile; tiles at the end are cut off.
      is_symmetric: compute only tiles on and above the diagonal.
    """

    def __init__(
        self,
        file: Path | None,
        shape: tuple[int, int],
        sides: tuple[int, int],
        is_symmetric: bool,
    ):
        self._file, self._sides, self._is_symmetric = file, sides, is_symmetric
        self._values = _load(file, shape)
        self._saved = time.monotonic()
        a, b = sides
        self.tiles = [
            Tile(i, j)
            for i in range(0, shape[0], a)
            for j in range(i if is_symmetric else 0, shape[1], b)
        ]

    def _slices(self, tile: Tile) -> tuple[slice, slice]:
        a, b = self._sides
        return slice(tile.row, tile.row + a), slice(tile.column, tile.column + b)

    def missing(self) -> list[Tile]:
        """Returns the tiles that are not computed yet."""
        return [t for t in self.tiles if np.isnan(self._values[self._slices(t)]).any()]

    def put(self, tile: Tile, values: Float[np.ndarray, "a b"]) -> None:
        """Stores a tile; rows and columns beyond the matrix are dropped."""
        target = self._values[self._slices(tile)]
        target[...] = values[: target.shape[0], : target.shape[1]]

    def save(self, *, at_once: bool) -> None:
        """Writes the file if ``at_once``, or if the last write was a while ago."""
        is_due = at_once or time.monotonic() - self._saved > _SAVE_SECONDS
        if self._file and is_due:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            save_npz(self._file, kernel=self._values)
            self._saved = time.monotonic()

    def matrix(self) -> Float[np.ndarray, "a b"]:
        """Returns the finished matrix."""
        if not self._is_symmetric:
            return self._values
        return np.triu(self._values) + np.triu(self._values, 1).T


def _load(file: Path | None, shape: tuple[int, int]) -> Float[np.ndarray, "a b"]:
    """Reads the saved part of a matrix; the rest is NaN."""
    if file:
        remove_unfinished(file.parent, file.name)
    if file and file.exists():
        try:
            values = load_npz(file)["kernel"]
            if values.shape == shape and values.dtype == np.float32:
                return values
        except DAMAGE:
            _log.warning("%s is damaged and is computed again", file)
    return np.full(shape, np.nan, np.float32)
