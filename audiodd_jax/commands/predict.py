"""``audiodd predict``: predicts the classes or tags of new sounds."""

import contextlib
import csv
import io
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from audiodd_jax.command_line import CommandLine, table
from audiodd_jax.commands.common import start
from audiodd_jax.config import Config
from audiodd_jax.coreset.file import EXAMPLE, Coreset, load_coreset
from audiodd_jax.data import audio, tree
from audiodd_jax.data.names import printable
from audiodd_jax.data.tables import TAG_SEPARATOR
from audiodd_jax.errors import UserError
from audiodd_jax.features.artefact import Prediction
from audiodd_jax.runtime import mirror
from audiodd_jax.runtime.files import (
    DAMAGE,
    LONGEST_NAME,
    is_writable,
    load_npz,
    write_atomically,
)
from audiodd_jax.training.networks_file import TrainedNetworks, load_networks

_log = logging.getLogger(__name__)

# Files of a run directory, the first of which is used.
_MODELS = ("networks.npz", "coreset.npz")


def run(line: CommandLine) -> None:
    """Predicts as the command line says, and prints the table or where it is."""
    flags, (name, *sounds) = line.flags, line.arguments
    if not sounds:
        raise UserError("usage: audiodd predict MODEL SOUNDS... [flags]")
    data, files = line.configure(Config()).data, _recordings(sounds)
    tracks = _tracks(files, Path(flags.labels)) if flags.labels else {}
    out = [Path(flags.out)] if flags.out else []
    for place in filter(None, (flags.out, flags.labels)):
        mirror.fetch(Path(place))  # to see what exists
    _check_names(out, list(tracks.values()), {name, *files}, flags.overwrite)
    start(flags, data)
    model = load_model(Path(name))
    found = model.predict_files(files, flags.window, flags.hop, data.skip_bad_files)
    text = _csv(found, flags.top or len(model.class_names), model.has_tags)
    written = dict.fromkeys(out, text)
    if tracks:
        written |= {tracks[p]: _track(f, model.has_tags) for p, f in found.items()}
    for file, content in written.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)
        mirror.publish(file)
    if not out:
        print(text, end="")
        return
    rows = [("recordings", f"{len(found):,}"), ("predictions", flags.out)]
    table([*rows, *([("label tracks", flags.labels)] if tracks else [])])


def _check_names(
    out: Sequence[Path], tracks: Sequence[Path], sources: set[str], overwrite: bool
) -> None:
    """Refuses files that cannot be written before hours of predictions."""
    sources = set(map(os.path.realpath, sources))
    for file in (*out, *tracks):
        if os.path.realpath(file) in sources:
            raise UserError(f"{file} is read here; choose another name for the output")
        if len(os.fsencode(file.name)) > LONGEST_NAME:
            raise UserError(f"the name {file.name} is too long; shorten it")
        if file.is_dir() or (file.exists() and not overwrite):
            raise UserError(f"{file} exists; choose another name or pass --overwrite")
        if not is_writable(file.parent):
            raise UserError(f"{file} cannot be written; choose another folder")
    if set(out) & set(tracks):
        raise UserError(f"{out[0]} is a label track too; choose another --out")


def load_model(path: Path) -> Coreset | TrainedNetworks:
    """Loads trained networks or a coreset from a file or run directory.

    Raises:
      UserError: there is neither, or the file is damaged.
    """
    files = [path / name for name in _MODELS]
    for file in [path] if path.suffix == ".npz" else files:
        mirror.fetch(file)
    if path.is_dir():
        path = next(filter(Path.is_file, files), path)
        if path.is_dir():
            raise UserError(f"{path} holds neither networks.npz nor coreset.npz")
    elif not path.exists() and path != Path(EXAMPLE):
        raise UserError(f"there is no model {path}; give a run directory or its .npz")
    _log.info("predicting with %s", path)
    with contextlib.suppress(*DAMAGE, FileNotFoundError):
        if "images" not in load_npz(path):
            return load_networks(path)
    return load_coreset(path)


def _recordings(sounds: Iterable[str]) -> list[str]:
    """Lists files and the recordings below folders; logs what folders leave out."""
    files, left_out = [], tree.LeftOut()
    for sound in map(Path, sounds):
        mirror.fetch(sound)
        found = tree.sound_files(sound, left_out) if sound.is_dir() else [sound]
        has_model = not found and any((sound / name).is_file() for name in _MODELS)
        if sound.suffix == ".npz" or has_model:
            raise UserError(f"{sound} is a model; give one model, and then sounds")
        if not found:
            formats = ", ".join(suffix[1:] for suffix in audio.SUFFIXES)
            raise UserError(f"the folder {sound} holds no sound file ({formats})")
        files += map(str, found)
    for reason, count, example in left_out.rows():
        _log.info("left out: %d, %s: %s", count, reason, example)
    return list(dict.fromkeys(files))


def _tracks(files: Sequence[str], folder: Path) -> dict[str, Path]:
    """Names the label track of each recording, in the subfolders of the recordings."""
    paths = list(map(os.path.abspath, files))
    base = os.path.commonpath(map(os.path.dirname, paths))
    names = (f"{os.path.relpath(path, base)}.txt" for path in paths)
    return {file: folder / name for file, name in zip(files, names, strict=True)}


def _names(prediction: Prediction, has_tags: bool) -> list[str]:
    """Names the class of a window, or the tags that are more likely than not."""
    names = list(prediction.probabilities)
    if not has_tags:
        return names[:1]
    return [name for name in names if prediction.probabilities[name] > 0.5]


def _csv(found: dict[str, list[Prediction]], top: int, has_tags: bool) -> str:
    """Writes a row per window."""
    rows = []
    for path, predictions in found.items():
        for prediction in predictions:
            start, end, probabilities = prediction
            row = {
                "path": printable(mirror.url_of(Path(path)) or path),
                "start": f"{start:.3f}",
                "end": f"{end:.3f}",
            }
            best = list(probabilities.items())[:top]
            for rank, (name, probability) in enumerate(best, start=1):
                suffix = f"_{rank}" if rank > 1 else ""
                row["label" + suffix] = name
                row["probability" + suffix] = f"{probability:.6f}"
            if has_tags:
                row["tags"] = TAG_SEPARATOR.join(sorted(_names(prediction, True)))
            rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _track(predictions: Sequence[Prediction], has_tags: bool) -> str:
    """Writes a recording's label track for Audacity.

    Consecutive windows of one class or tag are one label.
    """
    labels: list[list] = []
    latest: dict[str, list] = {}  # labels of the window before
    for prediction in predictions:
        before, latest = latest, {}
        for name in sorted(_names(prediction, has_tags)):
            if name not in before:
                labels.append([prediction.start, 0.0, name])
            latest[name] = before.get(name, labels[-1])
            latest[name][1] = prediction.end
    return "".join(f"{start:.6f}\t{end:.6f}\t{name}\n" for start, end, name in labels)
