"""Features on disk: computed once, memory-mapped after, never stale.

An entry is a folder named by a digest of everything that its numbers depend on: the
recordings' fingerprint, the feature settings and this module's format. It is written
under another name and renamed when it is whole.

    features.npy   [clips, f, t] float16, log-mel in dB, not normalised
    index.npz      labels, splits, folds, groups, names, seconds, rates
    meta.json      class names, resolved settings, what was skipped
"""

import collections
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Num, Shaped
from tqdm import tqdm

from audiodd_jax.config import Config, FeaturesConfig
from audiodd_jax.data import audio, datasets
from audiodd_jax.data.recordings import Recordings, Source
from audiodd_jax.features import logmel
from audiodd_jax.runtime.errors import UserError

# Raise it whenever the numbers of the same settings change.
FORMAT = 1
# Clips decoded, then transformed, at once: 256 of 5 s at 44.1 kHz are 226 MB.
_CHUNK = 256


@dataclasses.dataclass(frozen=True)
class FeatureSet:
    """Log-mel features of a whole dataset, and its index.

    Attributes:
      features: ``[clips, f, t]`` float16, dB; memory-mapped.
      labels: ``[clips]``.
      splits: ``[clips]``, as ``Recordings``.
      folds: ``[clips]``, as ``Recordings``.
      groups: ``[clips]``, as ``Recordings``.
      names: ``[clips]``.
      seconds: ``[clips]`` length of each recording.
      rates: ``[clips]`` sample rate of each recording in Hz.
      class_names: the classes.
      config: the feature settings, with everything left to the data filled in.
      version: of the dataset.
      licence: of the dataset.
      skipped: recordings left out because they could not be decoded, with reasons.
      path: the cache entry.
    """

    features: Num[np.ndarray, "clips f t"]
    labels: Int[np.ndarray, " clips"]
    splits: Shaped[np.ndarray, " clips"]
    folds: Int[np.ndarray, " clips"]
    groups: Shaped[np.ndarray, " clips"]
    names: Shaped[np.ndarray, " clips"]
    seconds: Float[np.ndarray, " clips"]
    rates: Int[np.ndarray, " clips"]
    class_names: tuple[str, ...]
    config: FeaturesConfig
    version: str
    licence: str
    skipped: tuple[str, ...]
    path: Path

    @property
    def raw_bytes(self) -> Float[np.ndarray, " clips"]:
        """Bytes of each recording as 16-bit mono samples at its own rate."""
        return 2.0 * self.seconds * self.rates


def prepare(config: Config, cache_dir: Path | None = None) -> FeatureSet:
    """Features of ``config.data``, from the cache or computed into it.

    Raises:
      UserError: the dataset or its recordings cannot be used.
    """
    cache_dir = cache_dir or datasets.cache_root()
    source = datasets.open_source(config.data, cache_dir)
    entry = cache_dir / "features" / f"{source.name}-{_key(source, config)}"
    if not entry.is_dir():
        _compute(source, config, entry)
    return _open(entry)


def _key(source: Source, config: Config) -> str:
    parts = {
        "format": FORMAT,
        "name": source.name,
        "version": source.version,
        "fingerprint": source.fingerprint,
        "features": dataclasses.asdict(config.features),
        "skip_bad_files": config.data.skip_bad_files,
    }
    # Statistics are computed from an entry when it is read, not stored in it.
    del parts["features"]["normalization"]
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _open(entry: Path) -> FeatureSet:
    meta = json.loads((entry / "meta.json").read_text())
    with np.load(entry / "index.npz", allow_pickle=False) as index:
        arrays = dict(index)
    return FeatureSet(
        features=np.load(entry / "features.npy", mmap_mode="r"),
        class_names=tuple(meta["class_names"]),
        config=FeaturesConfig(**meta["config"]),
        version=meta["version"],
        licence=meta["licence"],
        skipped=tuple(meta["skipped"]),
        path=entry,
        **arrays,
    )


def _compute(source: Source, config: Config, entry: Path) -> None:
    recordings = source.read()
    seconds, rates, bad = _headers(recordings)
    settings = _resolve(config.features, seconds, rates)
    entry.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=entry.name + ".", dir=entry.parent))
    try:
        shape = (len(recordings), settings.n_mels, settings.frames)
        store = np.lib.format.open_memmap(
            scratch / "all.npy", mode="w+", dtype=np.float16, shape=shape
        )
        _reserve(scratch / "all.npy")
        good = []
        for indices, waveforms, errors in _decoded(recordings, settings, set(bad)):
            bad.update(errors)
            if indices:
                # One shape, one compilation: the last chunk is padded with silence.
                padded = np.zeros((_CHUNK, waveforms.shape[1]), np.float32)
                padded[: len(indices)] = waveforms
                values = np.asarray(logmel.compute(padded, settings))[: len(indices)]
                store[len(good) : len(good) + len(indices)] = values
                good += indices
        audio.report_bad(list(bad.values()), config.data.skip_bad_files)
        kept = np.array(good, np.int64)
        labels = recordings.labels[kept]
        counts = np.bincount(labels, minlength=len(recordings.class_names))
        if (counts == 0).any():
            empty = recordings.class_names[int(np.argmin(counts))]
            raise UserError(f"the class {empty!r} has no recording that can be used")
        store.flush()
        if bad:
            np.save(scratch / "features.npy", store[: len(good)])
            (scratch / "all.npy").unlink()
        else:
            os.replace(scratch / "all.npy", scratch / "features.npy")
        np.savez(
            scratch / "index.npz",
            labels=labels,
            splits=recordings.splits[kept],
            folds=recordings.folds[kept],
            groups=recordings.groups[kept],
            names=np.array(recordings.names)[kept],
            seconds=seconds[kept],
            rates=rates[kept],
        )
        meta = {
            "class_names": recordings.class_names,
            "config": dataclasses.asdict(settings),
            "version": source.version,
            "licence": source.licence,
            "skipped": [str(error) for error in bad.values()],
        }
        (scratch / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
        try:
            os.rename(scratch, entry)
        except OSError:
            if not entry.is_dir():  # else another process was first: the same numbers
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _reserve(path: Path) -> None:
    """Takes a sparse file's room on the disk now.

    A memory-mapped write to a full disk would kill the process; this raises OSError.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from error


def _headers(
    recordings: Recordings,
) -> tuple[np.ndarray, np.ndarray, dict[int, audio.BadAudioError]]:
    """Seconds and sample rate of every recording, and what is wrong with which."""
    seconds = np.zeros(len(recordings), np.float32)
    rates = np.zeros(len(recordings), np.int32)
    bad: dict[int, audio.BadAudioError] = {}

    def read(index: int) -> None:
        try:
            seconds[index], rates[index] = recordings.headers(index)
        except audio.BadAudioError as error:
            bad[index] = error

    with ThreadPoolExecutor(audio.num_threads()) as pool:
        list(pool.map(read, range(len(recordings))))
    return seconds, rates, dict(sorted(bad.items()))


def _resolve(
    config: FeaturesConfig, seconds: np.ndarray, rates: np.ndarray
) -> FeaturesConfig:
    """Fills in the sample rate and the clip length that were left to the data."""
    good = rates > 0
    if not good.any():
        return dataclasses.replace(config, sample_rate=1, clip_seconds=1.0)
    rate, length = config.sample_rate, config.clip_seconds
    if not rate:
        rate = collections.Counter(rates[good].tolist()).most_common(1)[0][0]
    if not length:
        length = round(float(np.percentile(seconds[good], 95)), 3)
    settings = dataclasses.replace(config, sample_rate=rate, clip_seconds=length)
    logmel.mel_filter_bank(settings)  # bad settings are told before any decoding
    return settings


def _decoded(
    recordings: Recordings, settings: FeaturesConfig, bad: set[int]
) -> Iterator[tuple[list[int], np.ndarray, dict[int, audio.BadAudioError]]]:
    """Chunks of waveforms; the next chunk is decoded while the caller works on one."""
    samples = logmel.frontend(settings).samples
    todo = [i for i in range(len(recordings)) if i not in bad]
    chunks = [todo[i : i + _CHUNK] for i in range(0, len(todo), _CHUNK)]

    def one(index: int) -> np.ndarray | audio.BadAudioError:
        try:
            waveform, rate = recordings.load(index)
        except audio.BadAudioError as error:
            return error
        waveform = audio.resample(waveform, rate, settings.sample_rate)
        return audio.fit(waveform, samples, settings.align)

    with (
        ThreadPoolExecutor(audio.num_threads()) as pool,
        tqdm(total=len(todo), desc="features", unit="clip", disable=None) as bar,
    ):
        submit = lambda chunk: [pool.submit(one, index) for index in chunk]
        ahead = submit(chunks[0]) if chunks else []
        for chunk, following in zip(chunks, [*chunks[1:], []], strict=True):
            current, ahead = ahead, submit(following)
            results = dict(zip(chunk, (f.result() for f in current), strict=True))
            errors = {
                i: r for i, r in results.items() if isinstance(r, audio.BadAudioError)
            }
            indices = [i for i in chunk if i not in errors]
            yield indices, np.stack([results[i] for i in indices] or [[]]), errors
            bar.update(len(chunk))
