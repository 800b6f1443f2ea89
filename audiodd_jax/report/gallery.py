"""A coreset on the page: spectrograms and sounds, next to the nearest real clips."""

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import soundfile
from jaxtyping import Array, Float, Int

from audiodd_jax.config import fields
from audiodd_jax.coreset import audio_folder
from audiodd_jax.coreset.dataset import load_data
from audiodd_jax.coreset.file import Coreset, load_coreset
from audiodd_jax.coreset.selection import squared_distances
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.features import inversion, normalization
from audiodd_jax.features.clips import Clips
from audiodd_jax.report import tables
from audiodd_jax.report.groups import Group
from audiodd_jax.runtime import progress

# Spectrograms of a coreset on the page by default.
_CARDS = 100
# Training clips compared with a coreset at once.
_COMPARED_AT_ONCE = 4096
# Sample rates of MPEG 1, 2 and 2.5.
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


class Options(NamedTuple):
    """How coresets are shown in a report.

    Attributes:
      galleries: most coresets, the best per dataset and method first.
      per_class: most spectrograms per class; 0: a hundred in total.
      iterations: Griffin-Lim iterations; ``seed`` draws the initial phases.
      all_sounds: also write WAV files of the spectrograms that are not shown.
      cache_dir: folder for downloads and features; empty: the default.
    """

    galleries: int = 4
    per_class: int = 0
    iterations: int = 64
    seed: int = 0
    all_sounds: bool = False
    cache_dir: str = ""


class Sounds(NamedTuple):
    """Spectrograms in dB, their sounds, and the inversion's spectral convergence."""

    log_mel: Float[np.ndarray, "k f t"]
    waveforms: Float[np.ndarray, "k samples"]
    convergence: Float[np.ndarray, " k"]


class Side(NamedTuple):
    """A spectrogram on the page, with picture and sound as data URLs.

    ``labels`` has class names and values of its label; it is empty for a real clip.
    """

    title: str
    caption: str
    picture: str
    sound: str
    labels: Sequence[tuple[str, float]] = ()


class Gallery(NamedTuple):
    """A coreset on the page, with the number of its run and the folder of its sounds.

    ``cards`` are spectrograms, each followed by the nearest real clip if available;
    ``notes`` say what could not be shown; ``class_names`` are all of the coreset's.
    """

    number: int
    title: str
    caption: str
    cards: Sequence[Sequence[Side]]
    folder: Path
    notes: Sequence[str]
    class_names: Sequence[str] = ()


def make(group: Group, sounds_folder: Path, options: Options) -> Gallery:
    """Makes the gallery of a group's first coreset, in its own folder of sounds.

    Raises:
      UserError: the coreset is damaged.
    """
    run = group.first
    coreset = load_coreset(run.path / "coreset.npz")
    arrays = coreset.unpack()
    title = f"{run.dataset}, {group.name}, seed {run.seed}"
    labels = np.asarray(arrays.labels)
    # The page embeds everything that it shows, and a sound is a hundred times an image.
    per_class = options.per_class or max(1, _CARDS // len(coreset.class_names))
    classes = coreset.unpacked_classes
    rows = [np.flatnonzero(classes == c)[:per_class] for c in np.unique(classes)]
    shown = np.concatenate(rows)
    hidden = np.setdiff1d(np.arange(len(labels)), shown)
    written = np.concatenate([shown, hidden]) if options.all_sounds else shown
    folder = sounds_folder / tables.stem(title)
    notes, real = [], None
    with progress.bar(len(written) + len(shown), desc=title, unit="sound") as bar:

        def listen(images: Float[Array, "k f t 1"]) -> Sounds:
            log_mel = normalization.invert(images, coreset.normalization)
            inverted = inversion.invert_many(
                log_mel,
                coreset.features,
                key=jax.random.key(options.seed),
                iterations=options.iterations,
                done=bar.update,
            )
            return Sounds(np.asarray(log_mel), *inverted)

        sounds = listen(arrays.images[written])
        names = audio_folder.write(sounds.waveforms, coreset, folder, written)
        try:
            config = fields.from_dict(run.config)
            config = fields.with_cache(config, options.cache_dir)
            train = load_data(coreset, config.data, config.features, True).train
            rows, distances = nearest(arrays.images[shown], train)
            real_labels = np.asarray(train.labels)[rows]
            real = listen(train.take(rows)), real_labels, distances
        except (UserError, OSError) as reason:
            notes.append(f"No real clips are shown next to {title}: {reason}")
    spread = lambda heard: tables.spread(heard.convergence.tolist())
    caption = f"Spectral convergence of the inversion: {spread(sounds)}"
    if real:
        caption += f"; for the nearest real clips {spread(real[0])}"
    if len(hidden):
        caption += f". {len(hidden)} more spectrograms are not shown"
        if options.all_sounds:
            caption += ", but have WAV files"
    listing = folder.relative_to(sounds_folder.parent) / "metadata.csv"
    caption += f". {listing} lists the WAV files."
    titles = [coreset.class_names[c] for c in classes[shown]]
    cards = _cards(sounds, titles, labels[shown], names, real, coreset)
    names = coreset.class_names
    return Gallery(group.number, title, caption, cards, folder, notes, names)


def nearest(
    images: Float[Array, "s f t 1"], train: Clips
) -> tuple[Int[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """Finds the nearest training clips, of any class, with the same preprocessing.

    Returns their rows and distances: root mean squares, in standard deviations.
    """
    flat = lambda x: x.reshape(x.shape[0], -1)
    own, parts = flat(images), []
    for first in range(0, len(train.labels), _COMPARED_AT_ONCE):
        rows = np.arange(first, min(first + _COMPARED_AT_ONCE, len(train.labels)))
        squares = np.asarray(squared_distances(own, flat(train.take(rows))))
        best = squares.argmin(1)
        parts.append((rows[best], squares[np.arange(best.size), best]))
    rows, squares = (np.stack(values) for values in zip(*parts, strict=True))
    best, columns = squares.argmin(0), np.arange(squares.shape[1])
    return rows[best, columns], np.sqrt(squares[best, columns] / own.shape[1])


def _cards(
    sounds: Sounds,
    titles: list[str],
    labels: Float[np.ndarray, "s c"],
    names: list[str],
    real: tuple[Sounds, Int[np.ndarray, "s *c"], Float[np.ndarray, " s"]] | None,
    coreset: Coreset,
) -> list[list[Side]]:
    """Returns the sides of each card, titled by class, all on the same scale in dB."""
    shown = [sounds.log_mel[: len(labels)]]
    if real:
        shown.append(real[0].log_mel)
    limits = tuple(np.percentile(np.concatenate(shown), [1, 99.8]).tolist())

    def side(heard: Sounds, row: int, title: str, caption: str) -> Side:
        image = data_url(picture(heard.log_mel[row], limits), "image/png")
        content = sound(heard.waveforms[row], coreset.features.sample_rate)
        return Side(title, caption, image, data_url(*content))

    cards = []
    for i, label in enumerate(labels):
        own = side(sounds, i, titles[i], names[i])
        cards.append([own._replace(labels=[*strongest(label, coreset.class_names)])])
        if real:
            heard, real_labels, distances = real
            words = tags.in_words(real_labels[i], coreset.class_names)
            words = words.replace(";", ", ") if coreset.has_tags else words
            distance = f"{distances[i]:.2f} standard deviations per bin"
            cards[i].append(side(heard, i, f"real: {words}", f"nearest, {distance}"))
    return cards


def data_url(content: bytes, media_type: str) -> str:
    """Returns content as a data URL (RFC 2397)."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def picture(log_mel: Float[np.ndarray, "f t"], limits: tuple[float, float]) -> bytes:
    """Returns a PNG with one pixel per bin, low frequencies at the bottom.

    ``limits`` are the levels in dB of the darkest and brightest colour.
    """
    from matplotlib import image  # slow to import; other commands draw nothing

    file = io.BytesIO()
    low, high = limits
    image.imsave(file, log_mel[::-1], vmin=low, vmax=high, cmap="magma", format="png")
    return file.getvalue()


def sound(waveform: Float[np.ndarray, " samples"], rate: int) -> tuple[bytes, str]:
    """Encodes a sound as MP3 if possible, else WAV; returns content and media type."""
    if "MP3" in soundfile.available_formats() and rate in _MP3_RATES:
        return audio_folder.encoded(waveform, rate, "MP3"), "audio/mpeg"
    return audio_folder.encoded(waveform, rate, "WAV"), "audio/wav"


def strongest(
    label: Float[np.ndarray, " c"], class_names: tuple[str, ...], count: int = 3
) -> Iterator[tuple[str, float]]:
    """Yields the classes with the largest values, at least 0.01, of a centred label.

    The value of a hard label is 1.
    """
    values = label + 1 / label.size
    for index in np.argsort(-values, kind="stable")[:count]:
        if values[index] >= 0.01:
            yield class_names[index], float(values[index])
