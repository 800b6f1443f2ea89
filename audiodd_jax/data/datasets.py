"""The registry of datasets: what each one is, and where its reader lies.

Nothing heavy is imported until a dataset is opened, so that the command line can name
the datasets at once.
"""

import dataclasses
import difflib
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from audiodd_jax.config import DataConfig
from audiodd_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from audiodd_jax.data.recordings import Source


@dataclasses.dataclass(frozen=True)
class Dataset:
    """An entry of the registry.

    Attributes:
      title: its full name.
      version: as published.
      licence: its terms.
      homepage: where to read more.
      module: of the function ``open_source(config, cache_dir) -> Source``.
      split: the protocol of its test split, in words.
      needs_data_dir: True if the user must say where the recordings lie.
    """

    title: str
    version: str
    licence: str
    homepage: str
    module: str
    split: str
    needs_data_dir: bool = False


DATASETS = {
    "tones": Dataset(
        title="Tones: ten procedural sound classes, made on the spot",
        version="1.0.0",
        licence="Apache-2.0 (generated)",
        homepage="",
        module="audiodd_jax.data.synthetic",
        split="200 clips a class train, 40 test, drawn from one seed",
    ),
    "spoken_digit": Dataset(
        title="Free Spoken Digit Dataset",
        version="1.0.10",
        licence="CC BY-SA 4.0, Zohar Jackson et al.",
        homepage="https://github.com/Jakobovski/free-spoken-digit-dataset",
        module="audiodd_jax.data.builders.spoken_digit",
        split="official: takes 0-4 of each speaker and digit test, 5-49 train",
    ),
    "folder": Dataset(
        title="Any labelled folder of sounds",
        version="local",
        licence="that of the recordings",
        homepage="",
        module="audiodd_jax.data.folder",
        split="a CSV's split or fold column, train/ and test/ folders, or at random",
        needs_data_dir=True,
    ),
}


def lookup(name: str) -> Dataset:
    """The registry's entry for ``name``.

    Raises:
      UserError: there is none; the nearest names are offered.
    """
    if name in DATASETS:
        return DATASETS[name]
    near = difflib.get_close_matches(name, DATASETS, n=2, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "there are"
    listed = "" if near else f" {', '.join(DATASETS)}"
    raise UserError(f"there is no dataset {name!r}; {hint}{listed}")


def cache_root() -> Path:
    """Where downloads and features go: ``$AUDIODD_CACHE``, or the user's cache."""
    if place := os.environ.get("AUDIODD_CACHE"):
        return Path(place).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "audiodd_jax"


def open_source(config: DataConfig, cache_dir: Path | None = None) -> "Source":
    """Finds a dataset's recordings, downloading nothing yet.

    Raises:
      UserError: unknown dataset, or no recordings where the settings say.
    """
    entry = lookup(config.name)
    if entry.needs_data_dir and not config.data_dir:
        raise UserError(
            f"--dataset={config.name} needs --data_dir: where the recordings lie"
        )
    module = importlib.import_module(entry.module)
    return module.open_source(config, cache_dir or cache_root())
