"""Clips of sound files, decoded on demand."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from audiodd_jax.data import audio, tags
from audiodd_jax.data.recordings import Decoded, Recordings

_FULL_SCALE = 32768


class Clip(NamedTuple):
    """A sound file, or an excerpt of one, with its labels.

    Attributes:
      path: the sound file.
      labels: the clip's class alone, or its tags.
      name: unique within the dataset, for messages.
      split: ``train``, ``validation`` or ``test``; empty: drawn at random.
      fold: number of the official fold; None if the dataset has no folds.
      group: source recording or speaker; empty if unknown.
      start: offset in the file, in seconds.
      seconds: length; 0 reads the whole file.
      gain: factor on the waveform.
    """

    path: Path
    labels: tuple[str, ...]
    name: str = ""
    split: str = ""
    fold: int | None = None
    group: str = ""
    start: float = 0.0
    seconds: float = 0.0
    gain: float = 1.0

    @property
    def part(self) -> str:
        """The split, or the fold as ``fold3``."""
        return self.split if self.fold is None else f"fold{self.fold}"


def printable(name: str) -> str:
    """Escapes the bytes of a file name that are not UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def index(
    clips: Sequence[Clip],
    class_names: tuple[str, ...],
    has_tags: bool,
    is_int16: bool = False,
    **others: Any,
) -> Recordings:
    """Returns the index of some clips, with ``others`` of its attributes.

    ``is_int16`` rounds samples to 16 bits.
    """
    labels = tags.multi_hot([clip.labels for clip in clips], class_names)
    if not has_tags:
        labels = labels.argmax(1).astype(np.int32)
    return Recordings(
        class_names=class_names,
        names=tuple(clip.name for clip in clips),
        labels=labels,
        splits=np.array([clip.split for clip in clips], str),
        folds=np.array([clip.fold or 0 for clip in clips], np.int32),
        groups=np.array([clip.group for clip in clips], str),
        load=Decoder(clips, is_int16),
        read_headers=functools.partial(_headers, clips),
        **others,
    )


def _headers(clips: Sequence[Clip]) -> audio.Headers:
    headers = audio.headers([clip.path for clip in clips])
    for i, clip in enumerate(clips):
        if clip.seconds and headers.rates[i]:
            headers.seconds[i] = clip.seconds
    return headers


class Decoder:
    """Decodes the clip of an index; a class, so that it can be pickled."""

    def __init__(self, clips: Sequence[Clip], is_int16: bool):
        # Paths as text: 100,000 of them are pickled in a tenth of the time.
        self._excerpts = [
            (os.fspath(clip.path), clip.start, clip.seconds, clip.gain)
            for clip in clips
        ]
        self._is_int16 = is_int16

    def __call__(self, index: int) -> Decoded:
        """Returns the mono waveform and its sample rate in Hz.

        Raises:
          BadAudioError: the clip cannot be decoded.
        """
        path, start, seconds, gain = self._excerpts[index]
        waveform, rate = audio.decode(path)
        if seconds:
            first = round(start * rate)
            waveform = waveform[first : first + round(seconds * rate)]
        waveform = gain * waveform
        return (_as_int16(waveform) if self._is_int16 else waveform), rate


def _as_int16(waveform: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
    """Rounds to 16 bits; recordings beyond full scale are scaled, not clipped."""
    peak = max(1.0, float(np.abs(waveform).max(initial=0)))
    samples = np.round(waveform * (_FULL_SCALE / peak))
    samples = np.clip(samples, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
    return samples.astype(np.float32) / _FULL_SCALE
