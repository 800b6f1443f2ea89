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


class Artefact:
    """Base of what is used on new sounds: has ``features`` and ``normalization``."""

    @standard_numerics()
    def normalize(
        self, waveform: Float[np.ndarray, "..."], sample_rate: int
    ) -> Float[Array, "b f t 1"]:
        """Computes spectrograms of recordings, standardised as those of the file.

        Args:
          waveform: ``[samples]`` or ``[b, samples]``, mono, in [-1, 1].
          sample_rate: sample rate in Hz.
        """
        config = self.features
        samples = logmel.frontend(config).samples
        waveforms = np.atleast_2d(np.asarray(waveform, np.float32))
        rows = []
        for row in waveforms:
            row = audio.resample(row, sample_rate, config.sample_rate)
            rows.append(audio.fit(row, samples, config.align))
        log_mel = logmel.compute(np.stack(rows), config)
        return normalization.apply(log_mel, self.normalization)


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
