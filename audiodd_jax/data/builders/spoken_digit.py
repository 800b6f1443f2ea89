"""The Free Spoken Digit Dataset, as a TFDS builder that needs no TensorFlow.

3,000 recordings of the digits 0-9 by six speakers at 8 kHz. Official split: takes 0-4
of each speaker and digit test, takes 5-49 train.
"""

import contextlib
import functools
import io
import re
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from audiodd_jax.config import DataConfig
from audiodd_jax.data import audio, datasets, download
from audiodd_jax.data.recordings import (
    TEST,
    TRAIN,
    Recordings,
    Source,
    fingerprint_files,
    require_folder,
)
from audiodd_jax.runtime.errors import UserError

VERSION = "1.0.10"
SAMPLE_RATE = 8_000
CLASS_NAMES = tuple("0123456789")
FIRST_TRAIN_TAKE = 5
ARCHIVE = (
    "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/"
    f"v{VERSION}.tar.gz"
)
# The published release; a checkout may hold fewer or more recordings.
PUBLISHED_CLIPS = 3_000
_NAME = re.compile(r"([0-9])_([a-z]+)_([0-9]+)\.wav")


def find_recordings(folder: Path) -> dict[Path, tuple[int, str, int]]:
    """Recordings of a checkout: path -> (digit, speaker, take).

    Raises:
      UserError: none there, or a WAV file whose name is not ``digit_speaker_take.wav``.
    """
    place = folder / "recordings" if (folder / "recordings").is_dir() else folder
    found = {}
    for path in sorted(place.glob("*.wav")):
        match = _NAME.fullmatch(path.name)
        if not match:
            raise UserError(f"{path} is not named digit_speaker_take.wav")
        found[path] = (int(match[1]), match[2], int(match[3]))
    if not found:
        raise UserError(f"{folder} holds no recordings/digit_speaker_take.wav")
    return found


# TFDS ships a builder of this name for an earlier release; both may be imported.
with tfds.core.registered.skip_registration():

    class SpokenDigit(tfds.core.GeneratorBasedBuilder):
        """Audio as int16, label, speaker and file name; stored as ArrayRecord."""

        VERSION = tfds.core.Version(VERSION)
        name = "spoken_digit"

        def __init__(self, *, config_for: DataConfig, downloads: Path, **kwargs):
            """Builder of the recordings that ``config_for`` points at."""
            self._config = config_for
            self._downloads = downloads
            super().__init__(file_format="array_record", **kwargs)

        def _info(self) -> tfds.core.DatasetInfo:
            features = {
                "audio": tfds.features.Tensor(shape=(None,), dtype=np.int16),
                "label": tfds.features.ClassLabel(names=list(CLASS_NAMES)),
                "speaker": tfds.features.Text(),
                "name": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                description=datasets.lookup("spoken_digit").title,
                features=tfds.features.FeaturesDict(features),
                homepage=datasets.lookup("spoken_digit").homepage,
            )

        def _split_generators(self, dl_manager):
            found = find_recordings(_checkout(self._config, self._downloads))
            is_test = lambda path: found[path][2] < FIRST_TRAIN_TAKE
            good, bad = audio.check_all(list(found))
            audio.report_bad(bad, self._config.skip_bad_files)
            return {
                TRAIN: self._generate_examples(
                    {path: found[path] for path in good if not is_test(path)}
                ),
                TEST: self._generate_examples(
                    {path: found[path] for path in good if is_test(path)}
                ),
            }

        def _generate_examples(self, found):
            for path, (digit, speaker, _) in found.items():
                waveform = audio.resample(*audio.decode(path), SAMPLE_RATE)
                scaled = np.clip(np.round(waveform * 32768), -32768, 32767)
                yield (
                    path.name,
                    {
                        "audio": scaled.astype(np.int16),
                        "label": digit,
                        "speaker": speaker,
                        "name": path.name,
                    },
                )


def _checkout(config: DataConfig, downloads: Path) -> Path:
    """The folder with the recordings: the user's, or the published one, downloaded."""
    if config.data_dir:
        return require_folder(config.data_dir, "recordings/digit_speaker_take.wav")
    folder = downloads / f"free-spoken-digit-dataset-{VERSION}"
    try:
        archive = download.fetch(ARCHIVE, downloads / f"{folder.name}.tar.gz")
    except UserError as error:
        raise UserError(
            f"{error}; or pass --data_dir with a checkout of "
            f"{datasets.lookup('spoken_digit').homepage}"
        ) from error
    inside = download.extract(archive, folder, max_bytes=200 << 20) / folder.name
    count = len(find_recordings(inside))
    if count != PUBLISHED_CLIPS:
        raise UserError(
            f"{inside} holds {count} recordings, not the {PUBLISHED_CLIPS} published; "
            f"delete {archive} and {folder} to download them anew"
        )
    return inside


def open_source(config: DataConfig, cache_dir: Path) -> Source:
    """The recordings of a checkout, or those of the published archive."""
    if config.data_dir:
        root = require_folder(config.data_dir, "recordings/digit_speaker_take.wav")
        fingerprint = fingerprint_files(find_recordings(root), root)
    else:
        fingerprint = f"published-{VERSION}"
    if config.skip_bad_files:
        fingerprint += "-skipped"
    entry = datasets.lookup("spoken_digit")
    read = functools.partial(_read, config, cache_dir, fingerprint)
    return Source("spoken_digit", VERSION, entry.licence, fingerprint, read)


def _read(config: DataConfig, cache_dir: Path, fingerprint: str) -> Recordings:
    builder = SpokenDigit(
        config_for=config,
        downloads=cache_dir / "downloads",
        data_dir=cache_dir / "datasets" / fingerprint,
    )
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what we say better
        builder.download_and_prepare()
    parts = {split: builder.as_data_source(split) for split in (TRAIN, TEST)}
    index = [(split, i) for split, part in parts.items() for i in range(len(part))]
    # One pass over the records; they hold 12 MB of samples, so they are kept.
    records = [parts[split][i] for split, i in index]

    def load(clip: int) -> tuple[np.ndarray, int]:
        return records[clip]["audio"].astype(np.float32) / 32768, SAMPLE_RATE

    text = lambda name: [_text(record[name]) for record in records]
    return Recordings(
        class_names=CLASS_NAMES,
        names=tuple(text("name")),
        labels=np.array([record["label"] for record in records], np.int32),
        splits=np.array([split for split, _ in index]),
        folds=np.zeros(len(index), np.int32),
        # The official split has every speaker on both sides, so validation does too.
        groups=np.full(len(index), ""),
        load=load,
        headers=lambda i: (records[i]["audio"].size / SAMPLE_RATE, SAMPLE_RATE),
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
