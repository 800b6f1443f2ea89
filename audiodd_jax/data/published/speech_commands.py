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
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from audiodd_jax.config import DataConfig
from audiodd_jax.data import audio, datasets
from audiodd_jax.data.published import source
from audiodd_jax.data.recordings import SPLITS, TEST, TRAIN, VALIDATION, Clip, Source
from audiodd_jax.errors import UserError

URL = "https://storage.googleapis.com/download.tensorflow.org/data"
NOISE_FOLDER = "_background_noise_"
LISTS = {"validation_list.txt": VALIDATION, "testing_list.txt": TEST}
# Clips of each word in v0.01 and v0.02, as published.
_CLIPS = {
    "backward": (0, 1664),
    "bed": (1713, 2014),
    "bird": (1731, 2064),
    "cat": (1733, 2031),
    "dog": (1746, 2128),
    "down": (2359, 3917),
    "eight": (2352, 3787),
    "five": (2357, 4052),
    "follow": (0, 1579),
    "forward": (0, 1557),
    "four": (2372, 3728),
    "go": (2372, 3880),
    "happy": (1742, 2054),
    "house": (1750, 2113),
    "learn": (0, 1575),
    "left": (2353, 3801),
    "marvin": (1746, 2100),
    "nine": (2364, 3934),
    "no": (2375, 3941),
    "off": (2357, 3745),
    "on": (2367, 3845),
    "one": (2370, 3890),
    "right": (2367, 3778),
    "seven": (2377, 3998),
    "sheila": (1734, 2022),
    "six": (2369, 3860),
    "stop": (2380, 3872),
    "three": (2356, 3727),
    "tree": (1733, 1759),
    "two": (2373, 3880),
    "up": (2375, 3723),
    "visual": (0, 1592),
    "wow": (1745, 2123),
    "yes": (2377, 4044),
    "zero": (2376, 4052),
}
WORDS = {
    "v0.01": {word: clips for word, (clips, _) in _CLIPS.items() if clips},
    "v0.02": {word: clips for word, (_, clips) in _CLIPS.items()},
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
MINI_CLIPS = 1_000  # per word, in the published archive of these words
COMMANDS = (*MINI_WORDS, "off", "on")
UNKNOWN, SILENCE = "_unknown_", "_silence_"
# Each noise recording is divided along time, so that splits share no silence.
NOISE_SHARES = {TRAIN: (0.0, 0.8), VALIDATION: (0.8, 0.9), TEST: (0.9, 1.0)}
_SILENCE_SECONDS = 1.0
_SILENCE_SEED = 59_185


def official_part(file_name: str) -> str:
    """Returns the split of a clip by the published hash of its speaker."""
    maximum = 2**27 - 1
    digest = int(hashlib.sha1(_speaker(file_name).encode()).hexdigest(), 16)
    percent = (digest % (maximum + 1)) * (100.0 / maximum)
    if percent < 10:  # a tenth of the speakers, and another for test
        return VALIDATION
    return TEST if percent < 20 else TRAIN


def _speaker(file_name: str) -> str:
    return file_name.split("_nohash_")[0]


def find(
    folder: Path, words: tuple[str, ...], needs_lists: bool = True
) -> source.Contents:
    """Finds the clips of ``words``, split by the official lists; speakers are groups.

    Without the lists, if they are not needed, it is the archive of eight words, whose
    clips are split by the official hash.
    """
    lists: dict[str, str] = {}
    for name, split in LISTS.items():
        file = folder / name
        if file.is_file():
            lists |= dict.fromkeys(file.read_text().split(), split)
        elif needs_lists:
            raise UserError(f"{file} is missing: the official list of its split")
    has_lists = (folder / "testing_list.txt").is_file()
    clips = []
    for word in words:
        for stem, path in source.sounds(folder / word).items():
            name = f"{word}/{stem}.wav"  # as published and listed
            split = lists.pop(name, TRAIN) if has_lists else official_part(stem)
            clips.append(Clip(path, (word,), name, split, group=_speaker(stem)))
    missing = sorted(name for name in lists if name.split("/")[0] in words)
    noise = source.sounds(folder / NOISE_FOLDER).values()
    published = None if has_lists else {(word, ""): MINI_CLIPS for word in words}
    return source.Contents(clips, missing, tuple(noise), published)


def find_twelve(folder: Path, words: tuple[str, ...]) -> source.Contents:
    """Finds ten commands, other words as ``_unknown_``, and noise as ``_silence_``.

    The last two have as many clips per split as an average command.
    """
    contents = find(folder, words)
    if not contents.noise:
        raise UserError(
            f"{folder / NOISE_FOLDER} holds no recording to take silence from"
        )
    commands = [clip for clip in contents.clips if clip.labels[0] in COMMANDS]
    others = [clip for clip in contents.clips if clip.labels[0] not in COMMANDS]
    sizes = collections.Counter(clip.split for clip in commands)
    counts = {split: round(sizes[split] / len(COMMANDS)) for split in SPLITS}
    # The order by a digest of the names makes this a fixed random draw.
    others.sort(key=lambda clip: hashlib.sha256(clip.name.encode()).digest())
    unknown = []
    for split, count in counts.items():
        drawn = [clip for clip in others if clip.split == split][:count]
        unknown += [clip._replace(labels=(UNKNOWN,)) for clip in drawn]
    silent = cut_silence(contents.noise, counts)
    return contents._replace(clips=[*commands, *unknown, *silent])


def cut_silence(noise: Sequence[Path], counts: Mapping[str, int]) -> list[Clip]:
    """Cuts ``counts[split]`` clips of noise per split at random offsets and levels.

    The seed is fixed. A split leaves out recordings that are too short for it.
    """
    rng = np.random.default_rng(_SILENCE_SEED)
    seconds = audio.headers(noise).seconds
    clips = []
    for split, count in counts.items():
        low, high = NOISE_SHARES[split]
        usable = np.flatnonzero((high - low) * seconds > _SILENCE_SECONDS)
        for i in range(count if usable.size else 0):
            which = int(rng.choice(usable))
            first, last = low * seconds[which], high * seconds[which] - _SILENCE_SECONDS
            clips.append(
                Clip(
                    path=noise[which],
                    labels=(SILENCE,),
                    name=f"{SILENCE}/{split}-{i:05d}.wav",
                    split=split,
                    group=noise[which].name,
                    start=float(rng.uniform(first, last)),
                    seconds=_SILENCE_SECONDS,
                    gain=float(rng.uniform(0.0, 1.0)),
                )
            )
    return clips


def open_source(config: DataConfig) -> Source:
    """Finds the variant ``config.variant`` of the dataset."""
    variant = config.variant or datasets.lookup(config.name).variants[0]
    version = variant if variant in WORDS else "v0.02"
    words = names = tuple(sorted(WORDS[version]))
    find_clips = functools.partial(find, words=words)
    if variant == "mini":
        words = names = MINI_WORDS
        find_clips = functools.partial(find, words=words, needs_lists=False)
    elif variant == "twelve":
        find_clips = functools.partial(find_twelve, words=words)
        words = tuple(sorted(COMMANDS))
        names = (*words, UNKNOWN, SILENCE)
    published = {(word, ""): WORDS[version][word] for word in words}
    if variant == version:
        published |= {("", part): clips for part, clips in PART_CLIPS[version].items()}
    file_name = f"speech_commands_{version}.tar.gz"
    layout = source.Layout(
        version=version if variant == version else f"{version}, {variant}",
        class_names=names,
        markers=(words[-1] if variant == "mini" else "testing_list.txt",),
        holds="a folder per word, validation_list.txt and testing_list.txt",
        archive=file_name,
        url=f"{URL}/{file_name}",
        checksum=f"sha256:{CHECKSUMS[version]}",
        max_bytes=6 << 30,
        advice=f"download {file_name} elsewhere and pass it with --data_dir",
        find=find_clips,
        published=published,
    )
    return source.open_source(layout, config)
