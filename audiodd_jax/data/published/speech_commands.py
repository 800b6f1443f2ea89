"""Google Speech Commands: spoken words of one second at 16 kHz, with official lists.

Configurations (``--variant``):

- ``v0.01``: 30 words, 64,721 clips, 51,088 of them for training;
- ``v0.02``: 35 words, 105,829 clips;
- ``mini``: eight words of v0.02, or the published archive of this name, which has no
  lists and is split by the official hash of the speaker;
- ``twelve``: ten words of v0.02, ``_unknown_`` (the other words) and ``_silence_``
  (background noise), each as large as a word.

References:
  Warden, *Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition*,
  arXiv 1804.03209, 2018.
"""

import collections
import functools
import hashlib
import os
from pathlib import Path

from audiodd_jax.config import DataConfig
from audiodd_jax.data import datasets
from audiodd_jax.data.clips import Clip
from audiodd_jax.data.published import silence, source
from audiodd_jax.data.published.layout import Archive, Contents, Layout
from audiodd_jax.data.recordings import TEST, TRAIN, VALIDATION, Source
from audiodd_jax.errors import UserError

URL = "https://storage.googleapis.com/download.tensorflow.org/data"
NOISE_FOLDER = "_background_noise_"
LISTS = {"validation_list.txt": VALIDATION, "testing_list.txt": TEST}
PARTS = (TRAIN, VALIDATION, TEST)
# Clips of each word, as published.
WORDS = {
    "v0.01": {
        "bed": 1713,
        "bird": 1731,
        "cat": 1733,
        "dog": 1746,
        "down": 2359,
        "eight": 2352,
        "five": 2357,
        "four": 2372,
        "go": 2372,
        "happy": 1742,
        "house": 1750,
        "left": 2353,
        "marvin": 1746,
        "nine": 2364,
        "no": 2375,
        "off": 2357,
        "on": 2367,
        "one": 2370,
        "right": 2367,
        "seven": 2377,
        "sheila": 1734,
        "six": 2369,
        "stop": 2380,
        "three": 2356,
        "tree": 1733,
        "two": 2373,
        "up": 2375,
        "wow": 1745,
        "yes": 2377,
        "zero": 2376,
    },
    "v0.02": {
        "backward": 1664,
        "bed": 2014,
        "bird": 2064,
        "cat": 2031,
        "dog": 2128,
        "down": 3917,
        "eight": 3787,
        "five": 4052,
        "follow": 1579,
        "forward": 1557,
        "four": 3728,
        "go": 3880,
        "happy": 2054,
        "house": 2113,
        "learn": 1575,
        "left": 3801,
        "marvin": 2100,
        "nine": 3934,
        "no": 3941,
        "off": 3745,
        "on": 3845,
        "one": 3890,
        "right": 3778,
        "seven": 3998,
        "sheila": 2022,
        "six": 3860,
        "stop": 3872,
        "three": 3727,
        "tree": 1759,
        "two": 3880,
        "up": 3723,
        "visual": 1592,
        "wow": 2123,
        "yes": 4044,
        "zero": 4052,
    },
}
PART_CLIPS = {
    "v0.01": {TRAIN: 51_088, VALIDATION: 6_798, TEST: 6_835},
    "v0.02": {TRAIN: 84_843, VALIDATION: 9_981, TEST: 11_005},
}
CHECKSUMS = {
    "v0.01": "743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d",
    "v0.02": "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
}
MINI_WORDS = ("down", "go", "left", "no", "right", "stop", "up", "yes")
MINI_CLIPS = 1_000  # per word, in the archive of this name
COMMANDS = (*MINI_WORDS, "off", "on")
UNKNOWN, SILENCE = "_unknown_", "_silence_"


def official_part(file_name: str) -> str:
    """The part of a clip by the published hash of its speaker.

    A tenth of the speakers is for validation, a tenth for test.
    """
    speaker = file_name.split("_nohash_")[0]
    most = 2**27 - 1
    digest = int(hashlib.sha1(speaker.encode()).hexdigest(), 16)
    percent = (digest % (most + 1)) * (100.0 / most)
    if percent < 10:
        return VALIDATION
    return TEST if percent < 20 else TRAIN


def find(folder: Path, words: tuple[str, ...], hashed: bool = False) -> Contents:
    """The clips of ``words``, split by the official lists; speakers are groups.

    Args:
      folder: the unpacked archive.
      words: to look for.
      hashed: split by the official hash if there are no lists.

    Raises:
      UserError: a list is missing.
    """
    lists: dict[str, str] = {}
    for name, part in LISTS.items():
        file = folder / name
        if file.is_file():
            lists |= dict.fromkeys(file.read_text().split(), part)
        elif not hashed:
            raise UserError(f"{file} is missing: the official list of its split")
    has_lists = (folder / "testing_list.txt").is_file()
    clips = []
    for word in words:
        place = folder / word
        files = sorted(os.listdir(place)) if place.is_dir() else []
        for file in files:
            if not file.endswith(".wav"):
                continue
            name = f"{word}/{file}"
            split = lists.pop(name, TRAIN) if has_lists else official_part(file)
            speaker = file.split("_nohash_")[0]
            clips.append(Clip(place / file, (word,), name, split, group=speaker))
    missing = sorted(name for name in lists if name.split("/")[0] in words)
    noise = sorted((folder / NOISE_FOLDER).glob("*.wav"))
    return Contents(clips, missing, tuple(noise))


def find_twelve(folder: Path, words: tuple[str, ...]) -> Contents:
    """The ten commands, the other words as ``_unknown_``, noise as ``_silence_``.

    Each of the last two has as many clips per part as the commands have on average.

    Raises:
      UserError: as ``find``, or no background noise.
    """
    contents = find(folder, words)
    if not contents.noise:
        raise UserError(
            f"{folder / NOISE_FOLDER} holds no WAV file to take silence from"
        )
    commands = [clip for clip in contents.clips if clip.labels[0] in COMMANDS]
    others = [clip for clip in contents.clips if clip.labels[0] not in COMMANDS]
    sizes = collections.Counter(clip.part for clip in commands)
    share = {part: round(sizes[part] / len(COMMANDS)) for part in PARTS}
    # In the order of a digest of their names: a fixed draw.
    others.sort(key=lambda clip: hashlib.sha256(clip.name.encode()).digest())
    unknown = [
        clip._replace(labels=(UNKNOWN,))
        for part in PARTS
        for clip in [other for other in others if other.part == part][: share[part]]
    ]
    silent = silence.cut(contents.noise, share, SILENCE)
    return contents._replace(clips=[*commands, *unknown, *silent])


def _published(version: str, words: tuple[str, ...]) -> dict[tuple[str, str], int]:
    counts = {(word, ""): WORDS[version][word] for word in words}
    if set(words) == set(WORDS[version]):
        counts |= {("", part): clips for part, clips in PART_CLIPS[version].items()}
    return counts


def open_source(config: DataConfig, cache_dir: Path) -> Source:
    """The configuration ``config.variant`` of the dataset."""
    variant = config.variant or datasets.lookup("speech_commands").variants[0]
    version = variant if variant in WORDS else "v0.02"
    every = tuple(sorted(WORDS[version]))
    words, names = every, every
    look = functools.partial(find, words=every)
    published = _published(version, every)
    if variant == "mini":
        words = names = MINI_WORDS
        look = functools.partial(find, words=words, hashed=True)
        published = _published(version, words)
        if _is_mini_archive(config):
            published = {(word, ""): MINI_CLIPS for word in words}
    elif variant == "twelve":
        names = (*sorted(COMMANDS), UNKNOWN, SILENCE)
        look = functools.partial(find_twelve, words=every)
        published = _published(version, tuple(sorted(COMMANDS)))
    file_name = f"speech_commands_{version}.tar.gz"
    layout = Layout(
        name="speech_commands",
        version=version if variant == version else f"{version}, {variant}",
        class_names=names,
        parts=PARTS,
        markers=(words[-1] if variant == "mini" else "testing_list.txt",),
        holds="a folder per word, validation_list.txt and testing_list.txt",
        archive=Archive(
            file_name=file_name,
            url=f"{URL}/{file_name}",
            checksum=f"sha256:{CHECKSUMS[version]}",
            max_bytes=6 << 30,
            advice=f"download {file_name} elsewhere and pass it with --data_dir",
        ),
        find=look,
        published=published,
    )
    return source.open_source(layout, config, cache_dir)


def _is_mini_archive(config: DataConfig) -> bool:
    """Whether ``--data_dir`` is the unpacked archive of eight words, without lists."""
    place = Path(config.data_dir).expanduser()
    return (
        bool(config.data_dir)
        and place.is_dir()
        and not any(
            (folder / "testing_list.txt").exists()
            for folder in (place, *filter(Path.is_dir, place.iterdir()))
        )
    )
