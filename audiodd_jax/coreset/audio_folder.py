"""A coreset's sounds as an audio folder: WAV files by class, and a table."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float, Int

from audiodd_jax.coreset.file import Coreset
from audiodd_jax.coreset.sizes import ranks_in_class
from audiodd_jax.runtime.files import write_atomically

# Most bytes of a class's folder name.
_MAX_FOLDER = 100


def encoded(
    waveform: Float[np.ndarray, " samples"], rate: int, file_format: str = "WAV"
) -> bytes:
    """Encodes a sound in [-1, 1] as the bytes of a file; WAV has 16 bits per sample.

    ``rate`` is in Hz, ``file_format`` a format of libsndfile.
    """
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format=file_format)
    return file.getvalue()


def files(classes: Int[np.ndarray, " s"], class_names: tuple[str, ...]) -> list[str]:
    """Names a file per spectrogram, numbered in a folder per class or tag."""
    folders = folders_of(class_names)
    pairs = zip(classes, ranks_in_class(classes), strict=True)
    return [f"{folders[label]}/{number:04d}.wav" for label, number in pairs]


def folders_of(class_names: tuple[str, ...]) -> list[str]:
    """Names a folder per class, distinct even on file systems that ignore case."""
    taken: set[str] = set()
    result = []
    for name in class_names:
        base = re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "_"
        base = base.encode()[:_MAX_FOLDER].decode(errors="ignore")
        folder, number = base, 2
        while folder.lower() in taken:
            folder, number = f"{base}-{number}", number + 1
        taken.add(folder.lower())
        result.append(folder)
    return result


def write(
    waveforms: Float[np.ndarray, "k samples"],
    coreset: Coreset,
    folder: Path,
    rows: Int[np.ndarray, " k"] | None = None,
) -> list[str]:
    """Writes a coreset as an audio folder: WAV files by class, and a table.

    ``metadata.csv`` has a row per file: ``file_name``, ``label`` (the class that it was
    made for), and a column per class with the label's value (one-hot if labels were not
    learnt). Tags are joined by semicolons, as ``data.folder`` reads them. ``rows`` are
    the indices of the spectrograms; None: all. Returns the names of the WAV files
    within the folder.
    """
    labels, classes = np.asarray(coreset.unpack().labels), coreset.unpacked_classes
    names = files(classes, coreset.class_names)
    if rows is not None:
        labels, classes = labels[rows], classes[rows]
        names = [names[row] for row in rows]
    for name, waveform in zip(names, waveforms, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        # libsndfile would not report a full disk as such, so it does not write.
        (folder / name).write_bytes(encoded(waveform, coreset.features.sample_rate))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    columns = [f"label_{name}" for name in coreset.class_names]
    table.writerow(["file_name", "label", *columns])
    for name, label, made_for in zip(names, labels, classes, strict=True):
        shares = label + 1 / label.size
        is_class = not coreset.has_tags
        words = coreset.class_names[made_for] if is_class else coreset.in_words(label)
        table.writerow([name, words, *(f"{value:.6f}" for value in shares)])
    write_atomically(folder / "metadata.csv", text.getvalue())
    return names
