"""The registry of datasets: titles, licences, and the modules that read them.

Nothing heavy is imported before a dataset is opened, so that the command line can list
the datasets at once.
"""

import dataclasses
import difflib
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from audiodd_jax.config import DataConfig
from audiodd_jax.config.user_paths import default_cache, expanded, is_url
from audiodd_jax.errors import UserError

if TYPE_CHECKING:
    from audiodd_jax.data.recordings import Source


@dataclasses.dataclass(frozen=True)
class Entry:
    """A dataset of the registry."""

    title: str
    version: str
    licence: str
    module: str  # defines open_source(config) -> Source
    split: str  # the protocol of its test split, in words
    homepage: str = ""
    needs_data_dir: bool = False
    variants: tuple[str, ...] = ()  # the default first, if there are several
    folds: int = 0  # official ones; 0 for a fixed split


# The answers of a labelling session, which a folder can be.
JOURNAL = "answers.jsonl"
# Prefix of the names of datasets that TFDS has prepared.
TFDS = "tfds:"
_ESC50 = Entry(
    title="ESC-50",
    version="2.0",
    licence="CC BY-NC 3.0, Karol J. Piczak",
    homepage="https://github.com/karolpiczak/ESC-50",
    module="audiodd_jax.data.published.esc50",
    split="five official folds: one for test (by default 5), four for training",
    folds=5,
)
DATASETS = {
    "tones": Entry(
        title="Tones: ten procedural sound classes",
        version="1.0.0",
        licence="Apache-2.0 (generated)",
        module="audiodd_jax.data.synthetic",
        split="200 training and 40 test clips per class, generated from a single seed",
    ),
    "tones_tagged": Entry(
        title="Tones, tagged: one to three procedural sounds in a clip",
        version="1.0.0",
        licence="Apache-2.0 (generated)",
        module="audiodd_jax.data.synthetic",
        split="2,000 training and 400 test clips, generated from a single seed",
    ),
    "spoken_digit": Entry(
        title="Free Spoken Digit Dataset",
        version="1.0.10",
        licence="CC BY-SA 4.0, Zohar Jackson et al.",
        homepage="https://github.com/Jakobovski/free-spoken-digit-dataset",
        module="audiodd_jax.data.published.spoken_digit",
        split="official: test takes 0-4 of each speaker and digit, train takes 5-49",
    ),
    "speech_commands": Entry(
        title="Google Speech Commands",
        version="v0.01",
        licence="CC BY 4.0, Pete Warden, Google",
        homepage="https://arxiv.org/abs/1804.03209",
        module="audiodd_jax.data.published.speech_commands",
        split="official: testing_list.txt and validation_list.txt",
        variants=("v0.01", "v0.02", "mini", "twelve"),
    ),
    "arabic_speech_commands": Entry(
        title="Arabic Speech Commands",
        version="1.0",
        licence="CC BY 4.0, Abdulkader Ghandoura, Farouk Hjabo, Oumayma Al Dakkak",
        homepage="https://doi.org/10.5281/zenodo.4662481",
        module="audiodd_jax.data.published.arabic_speech_commands",
        split="official: train.csv, val.csv and test.csv, with disjoint speakers",
    ),
    "urbansound8k": Entry(
        title="UrbanSound8K",
        version="1.0",
        licence="CC BY-NC 3.0, Justin Salamon, Christopher Jacoby, Juan Pablo Bello",
        homepage="https://urbansounddataset.weebly.com/download-urbansound8k.html",
        module="audiodd_jax.data.published.urbansound8k",
        split="ten official folds: one for test (by default 10), nine for training",
        folds=10,
    ),
    "esc50": _ESC50,
    "esc10": dataclasses.replace(
        _ESC50, title="ESC-10", licence="CC BY 3.0, Karol J. Piczak"
    ),
    "folder": Entry(
        title="Any labelled folder of sounds",
        version="local",
        licence="that of the recordings",
        module="audiodd_jax.data.folder",
        split="a CSV's split or fold column, train/ and test/ folders, or random",
        needs_data_dir=True,
    ),
}


def lookup(name: str) -> Entry:
    """Returns the entry for ``name``, or for one that TFDS prepared: ``tfds:NAME``.

    Raises:
      UserError: an unknown name; the message suggests similar ones.
    """
    if name.startswith(TFDS) and len(name) > len(TFDS):
        return dataclasses.replace(
            DATASETS["folder"],
            title=f"{name.removeprefix(TFDS)} of TensorFlow Datasets",
            version="",
            module="audiodd_jax.data.tfds",
            split="its splits train, validation and test, or random",
            needs_data_dir=False,
        )
    if name in DATASETS:
        return DATASETS[name]
    near = difflib.get_close_matches(name, DATASETS, n=2, cutoff=0.4)
    hint = f"choose from {', '.join(DATASETS)}"
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    raise UserError(f"unknown dataset {name!r}; {hint}")


def title_of(config: DataConfig) -> str:
    """Returns the name of a user's folder or table, or else that of the dataset."""
    if config.name != "folder":
        return config.name
    path = Path(os.path.abspath(expanded(config.data_dir)))
    if path.stem == "metadata":
        path = path.parent
    return (path.name if path.is_dir() else path.stem) or config.name


def cache_root(config: DataConfig | None = None) -> Path:
    """Returns the folder for downloads and features.

    It is ``config.cache_dir``, ``$AUDIODD_CACHE``, or the user's cache folder.
    """
    given = config.cache_dir if config else ""
    return Path(expanded(given)) if given else default_cache()


def open_source(config: DataConfig) -> "Source":
    """Finds a dataset's recordings, without downloading.

    Raises:
      UserError: unknown dataset, or ``data_dir`` does not hold its recordings.
    """
    entry = lookup(config.name)
    if entry.needs_data_dir and not config.data_dir:
        raise UserError(
            f"--dataset={config.name} needs --data_dir, the folder of the recordings"
        )
    is_listed = config.variant in entry.variants or config.name.startswith(TFDS)
    if config.variant and not is_listed:
        variants = ", ".join(entry.variants) or "none"
        raise UserError(
            f"{config.name} has no variant {config.variant!r}; its variants: {variants}"
        )
    if (config.tags or config.background) and config.name != "folder":
        raise UserError(
            "--config.data.tags and --config.data.background are for segments of "
            f"--dataset=folder, and {config.name} has none"
        )
    if is_url(config.data_dir):
        # They import NumPy.
        from audiodd_jax.data import audio
        from audiodd_jax.runtime import mirror

        mirror.fetch(Path(expanded(config.data_dir)), lazy=tuple(audio.SUFFIXES))
    module = entry.module
    if config.name == "folder" and is_session(expanded(config.data_dir)):
        module = "audiodd_jax.data.sessions"
    return importlib.import_module(module).open_source(config)


def is_session(folder: str | os.PathLike) -> bool:
    """Returns whether a folder, given by its path or URL, is a session of label."""
    journal = Path(expanded(os.fspath(folder))) / JOURNAL
    if is_url(os.fspath(folder)):
        from audiodd_jax.runtime import mirror  # it imports NumPy

        return mirror.exists(journal)
    return journal.is_file()
