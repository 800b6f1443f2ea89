"""ESC-50, and its subset ESC-10: environmental sounds of 5 s, in five official folds.

References:
  Piczak, *ESC: Dataset for Environmental Sound Classification*, ACM Multimedia 2015.
"""

import functools
from pathlib import Path

from audiodd_jax.config import DataConfig
from audiodd_jax.data import tables
from audiodd_jax.data.published import source
from audiodd_jax.data.recordings import Clip, Source

URL = "https://github.com/karolpiczak/ESC-50/archive/master.zip"
# In the published archive, and in its mirrors.
TABLES = ("meta/esc50.csv", "esc50.csv")
AUDIO = ("audio/audio", "audio")
FOLDS = 5
CLIPS_PER_FOLD = 8  # of each class
CLASS_NAMES = (
    *("dog", "rooster", "pig", "cow", "frog", "cat", "hen", "insects", "sheep"),
    *("crow", "rain", "sea_waves", "crackling_fire", "crickets", "chirping_birds"),
    *("water_drops", "wind", "pouring_water", "toilet_flush", "thunderstorm"),
    *("crying_baby", "sneezing", "clapping", "breathing", "coughing", "footsteps"),
    *("laughing", "brushing_teeth", "snoring", "drinking_sipping"),
    *("door_wood_knock", "mouse_click", "keyboard_typing", "door_wood_creaks"),
    *("can_opening", "washing_machine", "vacuum_cleaner", "clock_alarm"),
    *("clock_tick", "glass_breaking", "helicopter", "chainsaw", "siren", "car_horn"),
    *("engine", "train", "church_bells", "airplane", "fireworks", "hand_saw"),
)
ESC10_NAMES = (
    *("dog", "rooster", "rain", "sea_waves", "crackling_fire", "crying_baby"),
    *("sneezing", "clock_tick", "helicopter", "chainsaw"),
)


def find(folder: Path, only_esc10: bool) -> source.Contents:
    """Finds the clips of ``meta/esc50.csv``; groups are Freesound recordings."""
    columns = ("filename", "fold", "category", "esc10", "src_file")
    table = source.first_existing(folder, TABLES)
    sounds = source.first_existing(folder, AUDIO)
    clips = [
        Clip(
            path=sounds / row["filename"],
            labels=(row["category"],),
            name=row["filename"],
            fold=row.fold,
            group=row["src_file"],
        )
        for row in tables.read(table, columns)
        if not only_esc10 or row["esc10"] == "True"
    ]
    return source.listed(clips, table, CLASS_NAMES, FOLDS)


def open_source(config: DataConfig) -> Source:
    """Finds ``esc50`` or ``esc10``, in the same folder or archive."""
    only_esc10 = config.name == "esc10"
    names = ESC10_NAMES if only_esc10 else CLASS_NAMES
    folds = tuple(f"fold{fold}" for fold in range(1, FOLDS + 1))
    layout = source.Layout(
        class_names=names,
        markers=TABLES,
        holds=f"audio/*.wav and {TABLES[0]}",
        archive="ESC-50-master.zip",
        url=URL,
        checksum="md5:7771e4b9d86d0945acce719c7a59305a",
        max_bytes=2 << 30,
        advice="download https://github.com/karolpiczak/ESC-50 elsewhere and pass "
        "it with --data_dir",
        may_change=True,
        find=functools.partial(find, only_esc10=only_esc10),
        published={(name, fold): CLIPS_PER_FOLD for name in names for fold in folds},
    )
    return source.open_source(layout, config)
