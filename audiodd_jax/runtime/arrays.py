"""Arrays in files."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

# What reading raises for a file that is cut, is something else, or lacks an array.
DAMAGE = (ValueError, KeyError, TypeError, EOFError, BadZipFile)


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a ``.npz``, without pickles.

    Raises:
      One of ``DAMAGE``, or OSError: it cannot be read.
    """
    # Opened here, since NumPy leaves a file open that turns out to be no archive.
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
