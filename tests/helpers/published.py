"""Miniatures of published datasets, in exactly their layouts, with made-up sounds."""

import csv
import hashlib
import tarfile
import zipfile

import checks
import numpy as np
import soundfile

from audiodd_jax.config import DataConfig
from audiodd_jax.data.published import (
    arabic_speech_commands,
    esc50,
    speech_commands,
    urbansound8k,
)

WORDS = ("bed", "down", "go", "left", "no", "right", "stop", "up", "yes", "zero")
NOISES = (
    *("doing_the_dishes", "dude_miaowing", "exercise_bike", "pink_noise"),
    *("running_tap", "white_noise"),
)
# Encodings that occur in UrbanSound8K: rate, channels, subtype of a WAV file.
ENCODINGS = (
    (44100, 2, "PCM_16"),
    (48000, 2, "PCM_24"),
    (44100, 1, "PCM_16"),
    (96000, 2, "PCM_24"),
    (22050, 1, "PCM_U8"),
    (11025, 1, "PCM_U8"),
    (8000, 1, "PCM_16"),
    (192000, 2, "PCM_16"),
    (44100, 2, "FLOAT"),
    (32000, 1, "MS_ADPCM"),
    (16000, 1, "IMA_ADPCM"),
    (24000, 1, "PCM_16"),
)


def sound(label, rng, rate=16_000, seconds=0.3, channels=1):
    """A tone whose pitch tells its class, in noise."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = 250.0 * 1.06 ** (label % 45)
    wave = 0.3 * np.sin(2 * np.pi * pitch * time)
    wave = wave + 0.02 * rng.standard_normal(time.size)
    return wave.astype(np.float32) if channels == 1 else np.stack([wave] * channels, 1)


def write_speech_commands(folder, words, speakers=20, seed=0):
    """Words of ``speakers`` speakers, lists by the official hash, background noise."""
    rng = np.random.default_rng(seed)
    lists = {"validation": [], "test": [], "train": []}
    hashes = [hashlib.sha1(f"{seed}-{i}".encode()).hexdigest()[:8] for i in range(500)]
    # As many speakers of each part as it takes for every split to be filled.
    order = {"train": 0.6, "validation": 0.2, "test": 0.2}
    chosen = []
    for part, share in order.items():
        of_part = [
            h
            for h in hashes
            if speech_commands.official_part(f"{h}_nohash_0.wav") == part
        ]
        chosen += of_part[: max(1, round(share * speakers))]
    for label, word in enumerate(words):
        (folder / word).mkdir(parents=True)
        for speaker in chosen:
            name = f"{speaker}_nohash_0.wav"
            wave = sound(label, rng, seconds=rng.choice([0.4, 1.0]))
            soundfile.write(folder / word / name, wave, 16_000, subtype="PCM_16")
            lists[speech_commands.official_part(name)].append(f"{word}/{name}")
    noise = folder / speech_commands.NOISE_FOLDER
    noise.mkdir()
    for name in NOISES:
        wave = 0.1 * rng.standard_normal(16_000 * 12)
        soundfile.write(noise / f"{name}.wav", wave, 16_000, subtype="PCM_16")
    (noise / "README.md").write_text("noise\n")
    (folder / "validation_list.txt").write_text("\n".join(lists["validation"]) + "\n")
    (folder / "testing_list.txt").write_text("\n".join(lists["test"]) + "\n")
    for name in ("README.md", "LICENSE"):
        (folder / name).write_text("Speech Commands\n")
    return {part: len(names) for part, names in lists.items()}


def write_arabic_speech_commands(folder, suffix=".wav", seed=0):
    """Every keyword by three speakers, one in each part, and background noise."""
    rng = np.random.default_rng(seed)
    for number, table in enumerate(arabic_speech_commands.TABLES):
        rows = []
        for label, keyword in enumerate(arabic_speech_commands.CLASS_NAMES):
            name = f"dataset/{keyword}/{number:08d}_NO_01{suffix}"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / name, sound(label, rng, 8_000, 1.0), 8_000)
            rows.append((name, keyword))
        with open(folder / table, "w", newline="") as file:
            csv.writer(file).writerows([("file", "class"), *rows])
    noise = folder / arabic_speech_commands.NOISE_FOLDER
    noise.mkdir()
    wave = 0.1 * rng.standard_normal(16_000 * 3)
    soundfile.write(noise / f"boiler{suffix}", wave, 16_000)
    (noise / "README.txt").write_text("noise\n")


def write_urbansound8k(folder, per_fold=2, seed=0):
    """Ten folds of ten classes, every encoding, clips of 0.1 to 4 s."""
    rng = np.random.default_rng(seed)
    (folder / "metadata").mkdir(parents=True)
    (folder / "UrbanSound8K_README.txt").write_text("UrbanSound8K\n")
    columns = [
        "slice_file_name",
        "fsID",
        "start",
        "end",
        "salience",
        "fold",
        "classID",
        "class",
    ]
    count = 0
    with (folder / urbansound8k.TABLES[0]).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        for fold in range(1, 11):
            place = folder / "audio" / f"fold{fold}"
            place.mkdir(parents=True)
            (place / ".DS_Store").write_bytes(b"")
            for label, name in enumerate(urbansound8k.CLASS_NAMES):
                for take in range(per_fold):
                    # Two slices come from one freesound recording.
                    source = 10_000 + 100 * fold + 10 * label + take // 2
                    slice_name = f"{source}-{label}-0-{take}.wav"
                    rate, channels, subtype = ENCODINGS[count % len(ENCODINGS)]
                    seconds = (0.1, 0.5, 4.0)[count % 3]
                    wave = sound(label, rng, rate, seconds, channels)
                    soundfile.write(place / slice_name, wave, rate, subtype=subtype)
                    row = (slice_name, source, 0.0, seconds, 1, fold, label, name)
                    table.writerow(row)
                    count += 1
    return count


def write_esc50(folder, per_fold=1, seed=0):
    """Five folds of fifty classes; clips of half a second instead of five."""
    rng = np.random.default_rng(seed)
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    for name in ("README.md", "LICENSE", "meta/esc50-human.xlsx"):
        (folder / name).write_text("ESC-50\n")
    with (folder / esc50.TABLES[0]).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
        )
        for fold in range(1, 6):
            for label, name in enumerate(esc50.CLASS_NAMES):
                for take in range(per_fold):
                    source = 1000 * fold + 10 * label + take // 2
                    clip = f"{fold}-{source}-{'AB'[take % 2]}-{label}.wav"
                    wave = sound(label, rng, 44_100, 0.5)
                    soundfile.write(folder / "audio" / clip, wave, 44_100)
                    in_esc10 = name in esc50.ESC10_NAMES
                    table.writerow(
                        (clip, fold, label, name, in_esc10, source, "AB"[take % 2])
                    )
    return 5 * 50 * per_fold


def pack_tar(folder, path, prefix):
    """``folder`` as a ``.tar.gz``, its members below ``prefix``."""
    with tarfile.open(path, "w:gz", compresslevel=1) as packed:
        packed.add(folder, prefix)
    return path


def pack_zip(folder, path, prefix):
    """``folder`` as a ``.zip``, its members below ``prefix``."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for file in sorted(folder.rglob("*")):
            packed.write(file, f"{prefix}/{file.relative_to(folder)}")
    return path


def checksum(path, algorithm):
    """``algorithm:hexdigest`` of a file."""
    return f"{algorithm}:{hashlib.new(algorithm, path.read_bytes()).hexdigest()}"


def source(name, place, cache, **changes):
    """The source of a dataset in ``place``."""
    config = DataConfig(name=name, data_dir=str(place), **changes)
    return checks.open_source(config, cache)


def read(name, place, cache, **changes):
    """Its index, although it is a miniature."""
    return source(name, place, cache, allow_partial=True, **changes).read()
