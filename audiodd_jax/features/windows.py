"""Windows of recordings, each of which gets one prediction."""

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from audiodd_jax.config import FeaturesConfig
from audiodd_jax.data import audio
from audiodd_jax.data.audio import BadAudioError
from audiodd_jax.errors import UserError
from audiodd_jax.features import logmel

# A recording that is longer than a window by this fraction at most is not cut.
_TOLERANCE = 0.1
# Seconds that are decoded at once: some formats are read from the beginning each time.
_PART = 60.0


class Window(NamedTuple):
    """A part of a recording, in seconds."""

    path: str
    start: float
    end: float


def cut(
    paths: Sequence[str], clip: float, window: float | None, hop: float | None
) -> tuple[list[Window], dict[str, BadAudioError]]:
    """Cuts recordings into windows; returns the errors of the others by path.

    The last window ends where the recording does. Lengths are those of
    ``Artefact.predict_files``.
    """
    window = clip if window is None else window
    hop = hop if hop is not None else window or clip
    if not 0 <= window <= clip or not 0 < hop < math.inf:
        raise UserError(
            f"--window is at most {clip:g} s, as the clips of this model, and --hop is "
            f"above 0, not {window:g} and {hop:g}"
        )
    found, bad = [], {}
    for path in paths:
        try:
            rate, frames, _ = audio.length(path)
        except BadAudioError as error:
            bad[path] = error
            continue
        seconds = frames / rate
        last = seconds - window
        if not window or last <= _TOLERANCE * window:
            found.append(Window(path, 0.0, seconds))
            continue
        starts = [i * hop for i in range(math.ceil(last / hop - 1e-6))]
        found += [Window(path, start, start + window) for start in (*starts, last)]
    return found, bad


def read(
    windows: Sequence[Window],
    config: FeaturesConfig,
    size: int,
    bad: dict[str, BadAudioError],
) -> Float[np.ndarray, "b samples"]:
    """Decodes ``size`` windows like the clips of a dataset; errors are added to bad.

    Those that are missing or cannot be decoded are silent.
    """
    waveforms = np.zeros((size, logmel.frontend(config).samples), np.float32)

    def read_part(rows: Sequence[int]) -> None:
        path, start, _ = windows[rows[0]]
        try:
            part, rate = audio.decode(path, start, windows[rows[-1]].end)
        except BadAudioError as error:
            bad[path] = error
            return
        for row in rows:
            first, last = (round((time - start) * rate) for time in windows[row][1:])
            waveform = audio.resample(part[first:last], rate, config.sample_rate)
            audio.fit(waveform, len(waveforms[row]), config.align, out=waveforms[row])

    part_of = lambda row: (windows[row].path, windows[row].start // _PART)
    parts = [list(rows) for _, rows in itertools.groupby(range(len(windows)), part_of)]
    with ThreadPoolExecutor(audio.num_threads()) as pool:
        list(pool.map(read_part, parts))
    return waveforms
