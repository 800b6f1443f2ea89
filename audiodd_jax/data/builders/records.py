"""A published dataset as TFDS records, made and read without TensorFlow.

The builder's examples are what TFDS expects; they are written by its sequential
writer, since the shuffling one holds a gigabyte in memory and then asks for
TensorFlow. Beside the records lies ``index.npz`` with everything but the sound, so that
a dataset of 100,000 clips is opened without reading one.
"""

import contextlib
import functools
import io
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from audiodd_jax.config import DataConfig
from audiodd_jax.data import audio, datasets
from audiodd_jax.data.builders import layout as layouts
from audiodd_jax.data.builders.layout import Clip, Layout, Place
from audiodd_jax.data.files_found import LeftOut, recordings
from audiodd_jax.data.recordings import Decoded, Recordings, Source
from audiodd_jax.errors import UserError
from audiodd_jax.runtime import files
from audiodd_jax.runtime.locks import exclusive

_log = logging.getLogger(__name__)

# To be raised whenever records of the same recordings change.
FORMAT = 2
_NOISE = "background_noise"
_SHARD = 4096
_BATCH = 256  # the writer rewrites its metadata after each
_FULL_SCALE = 32768

# TFDS ships builders of these names for other releases; both may be imported.
with tfds.core.registered.skip_registration():

    class ClipsBuilder(tfds.core.GeneratorBasedBuilder):
        """A dataset's clips as int16 samples, rate, label, name and group.

        Its splits are the parts of the official protocol: train, validation and test,
        or fold1 to foldN; background noise is a split of its own.
        """

        VERSION = tfds.core.Version(f"{FORMAT}.0.0")

        def __init__(
            self, layout: Layout, clips: list[Clip], noise: tuple[Path, ...], **kwargs
        ):
            """A builder of ``clips``; decoding errors are collected in ``bad``."""
            self.name = layout.name
            self.bad: list[audio.BadAudioError] = []
            self._layout, self._clips, self._noise = layout, clips, noise
            super().__init__(file_format="array_record", **kwargs)

        def _info(self) -> tfds.core.DatasetInfo:
            entry = datasets.lookup(self._layout.name)
            features = {
                # As bytes: a list of integers would be ten times as slow.
                "audio": tfds.features.Tensor(
                    shape=(None,), dtype=np.int16, encoding="bytes"
                ),
                "rate": np.int32,
                "label": tfds.features.ClassLabel(
                    names=[*self._layout.class_names, _NOISE]
                ),
                "name": tfds.features.Text(),
                "group": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                description=f"{entry.title}, {self._layout.version}",
                features=tfds.features.FeaturesDict(features),
                homepage=entry.homepage,
                license=entry.licence,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            """A generator per part, noise last; empty parts are left out."""
            parts = {
                part: [clip for clip in self._clips if clip.part == part]
                for part in self._layout.parts
            }
            noise = [Clip(p, p.name, _NOISE, _NOISE) for p in self._noise]
            return {
                part: self._generate_examples(clips)
                for part, clips in {**parts, _NOISE: noise}.items()
                if clips
            }

        def _generate_examples(
            self, clips: list[Clip]
        ) -> Iterator[tuple[str, dict[str, Any]]]:
            decoded = audio.decode_all(clip.path for clip in clips)
            for clip, result in zip(clips, decoded, strict=True):
                if isinstance(result, audio.BadAudioError):
                    self.bad.append(result)
                    continue
                waveform, rate = result
                example = {
                    "audio": _quantize(_excerpt(waveform, rate, clip)),
                    "rate": rate,
                    "label": clip.class_name,
                    "name": clip.name,
                    "group": clip.group,
                }
                yield clip.name, example


def _excerpt(waveform: np.ndarray, rate: int, clip: Clip) -> np.ndarray:
    first = round(clip.start * rate)
    last = first + round(clip.seconds * rate) if clip.seconds else waveform.size
    return clip.gain * waveform[first:last]


def _quantize(waveform: np.ndarray) -> np.ndarray:
    """As int16; floating-point audio beyond full scale is scaled, not clipped."""
    scaled = waveform * (_FULL_SCALE / max(1.0, float(np.abs(waveform).max(initial=0))))
    return np.clip(np.round(scaled), -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)


def open_source(layout: Layout, config: DataConfig, cache_dir: Path) -> Source:
    """Finds the dataset that ``layout`` describes.

    Raises:
      UserError: it is not there, and cannot be downloaded.
    """
    place = layouts.locate(layout, config, cache_dir)
    marks = [place.fingerprint, layout.version.replace(" ", "-").replace(",", "")]
    if config.allow_partial:
        marks.append("partial")
    if config.skip_bad_files:
        marks.append("skipped")
    fingerprint = "-".join(marks)
    read = functools.partial(_read, layout, place, config, cache_dir, fingerprint)
    licence = datasets.lookup(layout.name).licence
    return Source(layout.name, layout.version, licence, fingerprint, read)


def _read(
    layout: Layout, place: Place, config: DataConfig, cache_dir: Path, fingerprint: str
) -> Recordings:
    folder = cache_dir / "datasets" / layout.name / f"{fingerprint}-{FORMAT}"
    # One lock for all variants, which share the unpacked archive.
    with exclusive(cache_dir / "locks" / layout.name, "preparing this dataset"):
        if not folder.is_dir():
            _write(layout, place, config, cache_dir, folder)
    try:
        return _recordings(folder)
    except (*files.DAMAGE, OSError) as error:
        raise UserError(
            f"the records in {folder} are damaged ({error}); delete this folder to "
            "make them again"
        ) from error


def _write(
    layout: Layout, place: Place, config: DataConfig, cache_dir: Path, folder: Path
) -> None:
    """Writes ``folder`` atomically."""
    datasets.show_licence(layout.name, cache_dir)
    origin = layouts.unpacked(layout, place, config, cache_dir)
    found = layout.find(origin)
    clips = layouts.check(layout, found, origin, config)
    with files.atomic_folder(folder) as scratch:
        builder = ClipsBuilder(layout, clips, found.noise, data_dir=scratch)
        with _full_disk_named(scratch):
            index = _write_records(builder, len(clips) + len(found.noise))
        audio.report_bad(builder.bad, config.skip_bad_files)
        _write_index(scratch, builder, index, _left_out(origin, clips, found.noise))
    # The records hold all of it now; the archive is kept for other variants.
    if not place.folder:
        shutil.rmtree(cache_dir / "unpacked" / f"{layout.name}-{place.fingerprint}")


@contextlib.contextmanager
def _full_disk_named(folder: Path) -> Iterator[None]:
    """Raises an ``OSError`` if the record writer fails for a full disk."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if shutil.disk_usage(folder).free < 1 << 20:
            raise OSError(28, "No space left on device", str(folder)) from error
        raise


def _write_records(builder: ClipsBuilder, total: int) -> dict[str, list]:
    """Writes every split; returns the columns of the index."""
    columns: dict[str, list] = {"part": [], "name": [], "label": [], "group": []}
    columns |= {"seconds": [], "rate": []}
    os.makedirs(builder.data_dir)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints to stdout
        writer = tfds.core.SequentialWriter(
            builder.info, _SHARD, file_format="array_record"
        )
    bar = tqdm(total=total, desc="recordings", unit="clip", disable=None)
    with bar:
        for part, examples in builder._split_generators(None).items():
            writer.initialize_splits([part])
            batch = []
            for _, example in examples:
                length = example["audio"].size / example["rate"]
                values = {**example, "part": part, "seconds": length}
                for name, column in columns.items():
                    column.append(values[name])
                batch.append(example)
                if len(batch) == _BATCH:
                    writer.add_examples({part: batch})
                    batch = []
                bar.update()
            writer.add_examples({part: batch})
        writer.close_all()
    return columns


def _left_out(
    folder: Path, clips: list[Clip], noise: tuple[Path, ...]
) -> tuple[tuple[str, int, str], ...]:
    """Recordings in a folder that are none of the clips, and other files, counted."""
    left_out = LeftOut()
    used = {os.path.abspath(path) for path in (*(c.path for c in clips), *noise)}
    for path in recordings(folder, left_out):
        if os.path.abspath(path) not in used:
            left_out.add("recording that is not part of this dataset", path)
    return left_out.rows()


def _write_index(
    scratch: Path,
    builder: ClipsBuilder,
    columns: dict[str, list],
    left_out: tuple[tuple[str, int, str], ...],
) -> None:
    # A partial dataset may lack classes.
    there = set(columns["label"])
    present = [name for name in builder._layout.class_names if name in there]
    np.savez(
        scratch / "index.npz",
        class_names=np.array(present),
        part=np.array(columns["part"]),
        name=np.array(columns["name"]),
        label=np.array(columns["label"]),
        group=np.array(columns["group"]),
        seconds=np.array(columns["seconds"], np.float32),
        rate=np.array(columns["rate"], np.int32),
        records=np.array(os.path.relpath(builder.data_dir, scratch)),
        left_out=np.array(json.dumps(left_out)),
    )


class _Reader:
    """index -> (waveform, rate) from the records; reopened in other processes."""

    def __init__(self, records: Path, parts: list[tuple[str, int]]):
        self._records, self._parts = records, parts

    @functools.cached_property
    def _sources(self) -> list[Any]:
        builder = tfds.builder_from_directory(str(self._records))
        return [builder.as_data_source(part) for part, _ in self._parts]

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.pop("_sources", None)
        return state

    def __call__(self, index: int) -> Decoded:
        for (_, length), source in zip(self._parts, self._sources, strict=True):
            if index < length:
                example = source[index]
                rate = int(example["rate"])
                return example["audio"].astype(np.float32) / _FULL_SCALE, rate
            index -= length
        raise IndexError(index)


def _recordings(folder: Path) -> Recordings:
    index = files.load_npz(folder / "index.npz")
    class_names = tuple(str(name) for name in index["class_names"])
    clips = index["part"] != _NOISE
    parts, lengths = [], []
    for part in dict.fromkeys(index["part"].tolist()):  # in their order
        parts.append(part)
        lengths.append(int((index["part"] == part).sum()))
    reader = _Reader(
        folder / str(index["records"]), list(zip(parts, lengths, strict=True))
    )
    part = index["part"][clips]
    is_fold = np.char.startswith(part, "fold")
    column = lambda name: index[name][clips]
    position = {name: label for label, name in enumerate(class_names)}
    first_noise, total = int(clips.sum()), clips.size
    left_out = json.loads(str(index.get("left_out", "[]")))
    return Recordings(
        class_names=class_names,
        names=tuple(column("name").tolist()),
        labels=np.array([position[n] for n in column("label").tolist()], np.int32),
        splits=np.where(is_fold, "", part),
        folds=np.array(
            [int(p[4:]) if p.startswith("fold") else 0 for p in part.tolist()], np.int32
        ),
        groups=column("group"),
        load=reader,
        read_headers=lambda: audio.Headers(column("seconds"), column("rate"), {}),
        load_noise=None
        if first_noise == total
        else lambda: [reader(i) for i in range(first_noise, total)],
        left_out=tuple((why, count, example) for why, count, example in left_out),
    )
