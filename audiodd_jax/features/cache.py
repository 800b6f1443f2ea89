"""The feature cache: computed once, then memory-mapped, and never stale.

An entry is a folder named by a digest of everything that affects its numbers: the
fingerprint of the recordings, the feature settings and the version of the format. It is
written under a temporary name, and renamed when it is complete.

    features.npy   [clips, f, t] float16, log-mel in dB, not normalised
    moments.npy    [2, clips, f] mean and mean square over each clip's frames
    noise.npy      [pieces, f, t] background noise, if the dataset has any
    index.npz      labels, splits, folds, groups, names, seconds, rates
    meta.json      class names, resolved settings, skipped recordings
"""

import collections
import dataclasses
import hashlib
import json
import logging
import os
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Num, Shaped

from audiodd_jax.config import DataConfig, FeaturesConfig
from audiodd_jax.data import audio, datasets, decoders, tags
from audiodd_jax.data.recordings import Recordings, Source
from audiodd_jax.errors import UserError, named, writable
from audiodd_jax.features import extraction, logmel, normalization
from audiodd_jax.runtime import files, mirror
from audiodd_jax.runtime.files import exclusive

_log = logging.getLogger(__name__)

# Raise it whenever the numbers of the same settings change.
FORMAT = 4
# Columns of the index that are those of the recordings.
_COLUMNS = ("labels", "splits", "folds", "groups", "names")
# Fraction of each noise recording that is used; the rest may belong to another split.
_NOISE_SHARE = 0.8

# Automatic clips are at most so much longer than the median: spectrograms have few
# frames, of which a short clip in a long one would fill none.
_MOST_MEDIANS = 8


@dataclasses.dataclass(frozen=True)
class FeatureSet:
    """Log-mel features of a dataset, and its index.

    Arrays are those of the entry, and columns of the index as in ``Recordings``.
    """

    features: Num[np.ndarray, "clips f t"]
    moments: Float[np.ndarray, "2 clips f"]
    noise: Num[np.ndarray, "pieces f t"] | None
    labels: Int[np.ndarray, "clips *c"]
    splits: Shaped[np.ndarray, " clips"]
    folds: Int[np.ndarray, " clips"]
    groups: Shaped[np.ndarray, " clips"]
    names: Shaped[np.ndarray, " clips"]
    seconds: Float[np.ndarray, " clips"]
    rates: Int[np.ndarray, " clips"]  # in Hz
    class_names: tuple[str, ...]
    config: FeaturesConfig  # resolved
    version: str
    licence: str
    skipped: tuple[str, ...]  # recordings that could not be decoded, with reasons
    left_out: tuple[tuple[str, int, str], ...]  # as in ``Recordings``
    path: Path  # the entry
    present: str  # as in ``Recordings``; empty for entries of earlier versions

    @property
    def raw_bytes(self) -> Float[np.ndarray, " clips"]:
        """Size of each recording as 16-bit mono audio at its sample rate."""
        return 2.0 * self.seconds * self.rates


def prepare(data: DataConfig, settings: FeaturesConfig) -> FeatureSet:
    """Returns the features of a dataset, from the cache or computed now."""
    root = datasets.cache_root(data)
    source = datasets.open_source(data)
    parts = {
        "format": FORMAT,
        "name": source.name,
        "version": source.version,
        "fingerprint": source.fingerprint,
        "features": dataclasses.asdict(settings),
        "skip_bad_files": data.skip_bad_files,
    }
    # Entries have no statistics; these are computed after reading.
    del parts["features"]["normalization"]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    entry = root / "features" / f"{source.name}-{key}"
    found = _read_or_compute(source, data, settings, entry)
    if decoders.ffmpeg() and any(decoders.NEEDED in error for error in found.skipped):
        # Computed before FFmpeg was installed.
        entry = entry.with_name(f"{entry.name}-ffmpeg")
        found = _read_or_compute(source, data, settings, entry)
    if source.relabel:
        found = dataclasses.replace(found, **source.relabel(found.names)._asdict())
    return found


def _read_or_compute(
    source: Source, data: DataConfig, settings: FeaturesConfig, entry: Path
) -> FeatureSet:
    root = entry.parent.parent
    if not entry.is_dir():
        mirror.fetch(entry, whole="meta.json")
    if not entry.is_dir():
        lock = root / "locks" / entry.name
        advice = "set AUDIODD_CACHE, or pass --cache_dir, to a folder that can be"
        with (
            writable(root, "the cache", advice),
            exclusive(lock, "computing these features"),
            named(entry),
        ):
            if not entry.is_dir():
                _compute(source, data, settings, entry)
                mirror.publish(entry)
    return _open(entry)


def _open(entry: Path) -> FeatureSet:
    """Reads an entry, or raises UserError if it is damaged."""
    try:
        meta = json.loads((entry / "meta.json").read_text())
        index = files.load_npz(entry / "index.npz")
        features = files.load_npy(entry / "features.npy", is_mapped=True)
        moments = files.load_npy(entry / "moments.npy")
        clips = len(index["labels"])
        if features.shape[0] != clips or moments.shape[1] != clips:
            raise ValueError("its arrays have different lengths")
        noise = entry / "noise.npy"
        return FeatureSet(
            features=features,
            moments=moments,
            noise=files.load_npy(noise) if noise.exists() else None,
            class_names=tuple(meta["class_names"]),
            config=FeaturesConfig(**meta["config"]),
            version=meta["version"],
            licence=meta["licence"],
            skipped=tuple(meta["skipped"]),
            left_out=tuple(map(tuple, meta["left_out"])),
            path=entry,
            present=meta.get("present", ""),
            **index,
        )
    except (*files.DAMAGE, OSError) as error:
        raise UserError(
            f"the features in {entry} are damaged ({error}); delete this folder to "
            "compute them again"
        ) from error


def _compute(
    source: Source, data: DataConfig, settings: FeaturesConfig, entry: Path
) -> None:
    """Computes an entry atomically."""
    recordings = source.read()
    seconds, rates, bad = recordings.read_headers()
    if not rates.any():  # whatever --skip_bad_files says
        audio.report_bad(list(bad.values()), skip=False)
    settings = resolve(settings, seconds, rates)
    with files.atomic_folder(entry) as scratch:
        store = scratch / "all.npy"
        _make_store(store, len(recordings), settings)
        readable = [i for i in range(len(recordings)) if i not in bad]
        work = float(np.minimum(seconds, settings.clip_seconds).sum())
        processes = extraction.num_processes(work, data.processes)
        whole = extraction.Part(recordings.load, settings, store, readable)
        bad |= extraction.extract(whole, processes)
        audio.report_opposite()
        bad = dict(sorted(bad.items()))
        audio.report_bad(list(bad.values()), data.skip_bad_files)
        rows = np.delete(np.arange(len(recordings)), list(bad))
        counts = tags.counts(recordings.labels[rows], len(recordings.class_names))
        if (counts == 0).any():
            empty = recordings.class_names[int(np.argmin(counts))]
            raise UserError(f"the class {empty!r} has no usable recording")
        _write_arrays(scratch, rows, bool(bad), settings)
        _write_noise(scratch, recordings, settings)
        index = {name: getattr(recordings, name) for name in _COLUMNS}
        index |= {"seconds": seconds, "rates": rates}
        rows_of = {name: np.asarray(column)[rows] for name, column in index.items()}
        np.savez(scratch / "index.npz", **rows_of)
        meta = {
            "class_names": recordings.class_names,
            "config": dataclasses.asdict(settings),
            "version": source.version,
            "licence": source.licence,
            "skipped": [str(error) for error in bad.values()],
            "left_out": recordings.left_out,
            "present": recordings.present,
        }
        files.write_json(scratch / "meta.json", meta)


def _make_store(path: Path, clips: int, settings: FeaturesConfig) -> None:
    """Creates a float16 ``.npy`` of ``[clips, f, t]`` with its disk space reserved.

    Raises OSError on a full disk, where writing to a memory map would kill the process.
    """
    shape = (clips, settings.n_mels, settings.frames)
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from error


def _write_arrays(
    scratch: Path, rows: np.ndarray, is_part: bool, settings: FeaturesConfig
) -> None:
    """Keeps some rows of ``all.npy``, and writes the moments of their clips."""
    source, target = scratch / "all.npy", scratch / "features.npy"
    if is_part:
        _make_store(target, rows.size, settings)
    else:
        os.replace(source, target)
    moments = []
    for start in range(0, rows.size, 1024):
        part = slice(start, start + 1024)
        # Reopened for each part, so that written pages leave the resident memory.
        features = np.load(target, mmap_mode="r+")
        if is_part:
            features[part] = np.load(source, mmap_mode="r")[rows[part]]
        moments.append(normalization.moments(features[part]))
    np.save(scratch / "moments.npy", np.concatenate(moments, axis=1))
    source.unlink(missing_ok=True)


def _write_noise(
    scratch: Path, recordings: Recordings, settings: FeaturesConfig
) -> None:
    """Writes features of background noise, cut to the length of clips."""
    if recordings.load_noise is None:
        return
    samples = logmel.frontend(settings).samples
    pieces = []
    for waveform, rate in recordings.load_noise():
        waveform = audio.resample(waveform, rate, settings.sample_rate)
        # The end of a recording may be a test clip of the class silence.
        waveform = waveform[: int(_NOISE_SHARE * waveform.size)]
        count = waveform.size // samples
        pieces.append(waveform[: count * samples].reshape(count, samples))
    if sum(piece.size for piece in pieces):
        values = np.asarray(logmel.compute(np.concatenate(pieces), settings))
        np.save(scratch / "noise.npy", values.astype(np.float16))


def _length(seconds: np.ndarray) -> float:
    """The 95th percentile, but no more than a few medians, which most clips fill."""
    percentile = float(np.percentile(seconds, 95))
    length = round(min(percentile, _MOST_MEDIANS * float(np.median(seconds))), 3)
    if seconds.max() > 2 * length:
        _log.warning(
            "%d of %d clips are longer than clip_seconds=%g (up to %.4g s) and are cut "
            "to it; --config.features.clip_seconds=N sets another length",
            (seconds > length + 1e-3).sum(),
            seconds.size,
            length,
            seconds.max(),
        )
    return length


def resolve(
    config: FeaturesConfig, seconds: np.ndarray, rates: np.ndarray
) -> FeaturesConfig:
    """Replaces an automatic sample rate and clip length by numbers."""
    is_readable = rates > 0
    rate, length = config.sample_rate, config.clip_seconds
    usual = collections.Counter(rates[is_readable].tolist()).most_common(1)[0][0]
    if rate > usual:
        _log.warning(
            "most recordings have %d Hz: at %d Hz, the mel bins above %d Hz are empty; "
            "--config.features.sample_rate=0 takes the rate of the recordings",
            usual,
            rate,
            usual // 2,
        )
    rate = rate or usual
    if not length:
        length = _length(seconds[is_readable])
    settings = dataclasses.replace(config, sample_rate=rate, clip_seconds=length)
    logmel.mel_filter_bank(settings)  # raises on bad settings before decoding
    return settings
