"""Preprocessing and file headers that coresets and trained networks share."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from audiodd_jax.data import audio
from audiodd_jax.errors import UserError
from audiodd_jax.features import logmel, normalization
from audiodd_jax.runtime.environment import standard_numerics
from audiodd_jax.runtime.files import DAMAGE, load_npz

# A longer axis of a waveform is that of the samples.
_MOST_CHANNELS = 64


class Artefact:
    """Base of what is used on new sounds: has ``features`` and ``normalization``."""

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
        return normalization.apply(log_mel, self.normalization)


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
        metadata = json.loads(str(arrays.pop("metadata")))
        if metadata["format"] > newest:
            raise UserError(
                f"{path} has format {metadata['format']}; this version reads {newest}"
            )
        yield arrays, metadata
    except DAMAGE as error:
        raise UserError(f"{path} is not a {kind} of audiodd_jax") from error


def statistics(metadata: dict[str, Any]) -> normalization.Normalization:
    """Returns the statistics that a file's metadata records."""
    stats = metadata["normalization"]
    mean, std = (np.array(stats[name], np.float32) for name in ("mean", "std"))
    return normalization.Normalization(mean, std)
