"""Preprocessing and file headers that coresets and trained networks share."""

import contextlib
import itertools
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Num

from audiodd_jax.data import audio
from audiodd_jax.errors import UserError
from audiodd_jax.features import logmel, normalization, windows
from audiodd_jax.features.clips import standardize
from audiodd_jax.runtime import devices, progress
from audiodd_jax.runtime.environment import standard_numerics
from audiodd_jax.runtime.files import DAMAGE, load_npz

# A longer axis of a waveform is that of the samples.
_MOST_CHANNELS = 64
# Windows that are predicted at once, and bytes of their waveforms.
_MOST, _MOST_BYTES = 256, 64 << 20
# Bytes of a file's metadata.
_MOST_TEXT = 16 << 20


class Prediction(NamedTuple):
    """A window, in seconds, and the probability of each class or tag, largest first."""

    start: float
    end: float
    probabilities: dict[str, float]


class Artefact:
    """Base of models, which have ``features``, ``normalization`` and ``predict``."""

    def predict_file(
        self, path: str | os.PathLike, top: int | None = None, **lengths: float | None
    ) -> list[Prediction]:
        """Predicts the ``top`` classes or tags of a recording, or all.

        A long recording is predicted window by window; ``lengths`` are as in
        ``predict_files``.

        Raises:
          UserError: the recording cannot be decoded, or a length is not possible.
        """
        (found,) = self.predict_files([os.fspath(path)], **lengths).values()
        best = lambda row: dict(itertools.islice(row.items(), top))
        return [Prediction(start, end, best(row)) for start, end, row in found]

    @standard_numerics()
    def predict_files(
        self,
        paths: Sequence[str],
        window: float | None = None,
        hop: float | None = None,
        skip_bad_files: bool = False,
    ) -> dict[str, list[Prediction]]:
        """Predicts recordings window by window, in batches of one size.

        Args:
          window: seconds, at most a clip's (None); 0: recordings are cropped to a clip.
          hop: seconds from window to window; None: windows do not overlap.
        """
        config = self.features
        found, bad = windows.cut(paths, config.clip_seconds, window, hop)
        if not skip_bad_files or not found:
            audio.report_bad(list(bad.values()), skip=False)
        most = max(1, _MOST_BYTES // (4 * logmel.frontend(config).samples))
        size = min(_MOST, most, 1 << (len(found) - 1).bit_length())
        result: dict[str, list[Prediction]] = {}
        with progress.bar(len(found), desc="predictions", unit="window") as bar:
            for first in range(0, len(found), size):
                part = found[first : first + size]
                waveforms = windows.read(part, config, size, bad)
                if not skip_bad_files:
                    audio.report_bad(list(bad.values()), skip=False)
                # Rounded like the features of a dataset.
                log_mel = logmel.compute(waveforms, config).astype(np.float16)
                images = devices.spread(self.standardized(log_mel))
                rows = np.asarray(self.predict(images))
                for (path, start, end), row in zip(part, rows, strict=False):
                    order = np.argsort(-row, kind="stable")
                    named = {self.class_names[i]: float(row[i]) for i in order}
                    predictions = result.setdefault(path, [])
                    predictions.append(Prediction(start, end, named))
                bar.update(len(part))
        result = {path: rows for path, rows in result.items() if path not in bad}
        audio.report_bad(list(bad.values()), skip=bool(result))
        return result

    @standard_numerics()
    def normalize(
        self, waveform: Float[np.ndarray, "..."], sample_rate: int
    ) -> Float[Array, "b f t 1"]:
        """Computes spectrograms of recordings, standardised as those of the file.

        Args:
          waveform: in [-1, 1]. ``[samples]``; ``[b, samples]``, if the last axis is
            longer than 64; or else ``[samples, channels]``, as from ``soundfile.read``,
            if the first axis is.
          sample_rate: sample rate in Hz.

        Raises:
          UserError: another shape, or values that are not finite.
        """
        config = self.features
        samples = logmel.frontend(config).samples
        rows = []
        for channels in _recordings(np.asarray(waveform, np.float32)):
            row = audio.mono("the waveform", channels)
            row = audio.resample(row, sample_rate, config.sample_rate)
            rows.append(audio.fit(row, samples, config.align))
        audio.report_opposite()
        log_mel = logmel.compute(np.stack(rows), config)
        return self.standardized(log_mel)

    def standardized(
        self, log_mel: Num[Array | np.ndarray, "b f t"]
    ) -> Float[Array, "b f t 1"]:
        """Standardises spectrograms in dB as those of the file."""
        return standardize(log_mel, self.normalization)


def _recordings(waveform: np.ndarray) -> list[np.ndarray]:
    """Splits an array into recordings ``[samples, channels]``."""
    match waveform.shape:
        case (_,):
            return [waveform[:, None]]
        case (_, samples) if samples > _MOST_CHANNELS:
            return [row[:, None] for row in waveform]
        case (samples, _) if samples > _MOST_CHANNELS:
            return [waveform]
    raise UserError(
        f"it is unclear what the axes of a waveform {list(waveform.shape)} are: give "
        f"[samples], [recordings, samples] or [samples, channels], with more than "
        f"{_MOST_CHANNELS} samples"
    )


@contextlib.contextmanager
def opened(
    path: Path, kind: str, newest: int
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, Any]]]:
    """Yields the arrays and the metadata of a file, at most of format ``newest``.

    Raises:
      UserError: the file does not exist, is damaged, which the block may find, or has
        a newer format.
    """
    if not path.is_file():
        raise UserError(f"there is no {kind} {path}")
    try:
        arrays = load_npz(path)
        metadata = json.loads(_text(arrays.pop("metadata")))
        if metadata["format"] > newest:
            raise UserError(
                f"{path} has format {metadata['format']}; this version reads {newest}"
            )
        yield arrays, metadata
    except DAMAGE as error:
        raise UserError(f"{path} is not a {kind} of audiodd_jax") from error


def _text(stored: np.ndarray) -> str:
    """Returns a file's metadata, which may be compressed."""
    if stored.dtype != np.uint8:
        return str(stored)
    try:
        # Damage must not make it larger than memory.
        text = zlib.decompressobj().decompress(stored.tobytes(), _MOST_TEXT)
    except zlib.error as error:
        raise ValueError("the metadata are damaged") from error
    return text.decode()


def statistics(metadata: dict[str, Any]) -> normalization.Normalization:
    """Returns the statistics that a file's metadata records."""
    stats = metadata["normalization"]
    mean, std = (np.array(stats[name], np.float32) for name in ("mean", "std"))
    return normalization.Normalization(mean, std)
