"""UrbanSound8K: 8,732 clips of up to 4 s of ten urban sounds, in ten official folds.

References:
  Salamon, Jacoby, Bello, *A Dataset and Taxonomy for Urban Sound Research*, ACM
  Multimedia 2014.
"""

from pathlib import Path

from audiodd_jax.config import DataConfig
from audiodd_jax.data import datasets, tables
from audiodd_jax.data.published import source
from audiodd_jax.data.recordings import Clip, Source

CHECKSUM = "md5:9aa69802bbf37fb986f71ec1483a196e"
# In the published archive, and in its mirrors.
TABLES = ("metadata/UrbanSound8K.csv", "UrbanSound8K.csv")
AUDIO = ("audio", ".")
# Clips in folds 1 to 10, as published.
PUBLISHED_CLIPS = {
    "air_conditioner": (100, 100, 100, 100, 100, 100, 100, 100, 100, 100),
    "car_horn": (36, 42, 43, 59, 98, 28, 28, 30, 32, 33),
    "children_playing": (100, 100, 100, 100, 100, 100, 100, 100, 100, 100),
    "dog_bark": (100, 100, 100, 100, 100, 100, 100, 100, 100, 100),
    "drilling": (100, 100, 100, 100, 100, 100, 100, 100, 100, 100),
    "engine_idling": (96, 100, 107, 107, 107, 107, 106, 88, 89, 93),
    "gun_shot": (35, 35, 36, 38, 40, 46, 51, 30, 31, 32),
    "jackhammer": (120, 120, 120, 120, 120, 68, 76, 78, 82, 96),
    "siren": (86, 91, 119, 166, 71, 74, 77, 80, 82, 83),
    "street_music": (100, 100, 100, 100, 100, 100, 100, 100, 100, 100),
}
CLASS_NAMES = tuple(PUBLISHED_CLIPS)
FOLDS = 10


def find(folder: Path) -> source.Contents:
    """Finds the clips of the table; groups are Freesound recordings."""
    columns = ("slice_file_name", "fsID", "fold", "class")
    table = source.first_existing(folder, TABLES)
    sounds = source.first_existing(folder, AUDIO)
    clips = [
        Clip(
            path=sounds / f"fold{row.fold}" / row["slice_file_name"],
            labels=(row["class"],),
            name=row["slice_file_name"],
            fold=row.fold,
            group=row["fsID"],
        )
        for row in tables.read(table, columns)
    ]
    return source.listed(clips, table, CLASS_NAMES, FOLDS)


def open_source(config: DataConfig) -> Source:
    """Finds the folder or archive, which must be requested with a form."""
    homepage = datasets.lookup(config.name).homepage
    layout = source.Layout(
        class_names=CLASS_NAMES,
        markers=TABLES,
        holds=f"audio/fold1 to audio/fold10 and {TABLES[0]}",
        archive="UrbanSound8K.tar.gz",
        checksum=CHECKSUM,
        max_bytes=10 << 30,
        advice=f"fill in the form at {homepage} and download it (6 GB)",
        find=find,
        published={
            (name, f"fold{fold}"): clips
            for name, folds in PUBLISHED_CLIPS.items()
            for fold, clips in enumerate(folds, start=1)
        },
    )
    return source.open_source(layout, config)
