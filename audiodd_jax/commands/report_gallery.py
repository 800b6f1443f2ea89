"""A coreset in a report: its spectrograms and sounds, next to nearest real clips."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiodd_jax.config import fields
from audiodd_jax.coreset import audio_folder
from audiodd_jax.coreset.dataset import load_data
from audiodd_jax.coreset.file import Coreset, load_coreset
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.report import gallery, html_page, summary, tables
from audiodd_jax.report.html_page import Card, Gallery, Side
from audiodd_jax.report.run_index import Group
from audiodd_jax.runtime import progress

# Spectrograms of a coreset on the page by default.
_CARDS = 100


class Options(NamedTuple):
    """What the report shows of coresets.

    Attributes:
      galleries: most coresets, the best per dataset and method first.
      per_class: most spectrograms per class; 0: a hundred in total.
      iterations: of Griffin-Lim.
      seed: of its initial phases.
      all_sounds: write WAV files of the spectrograms beyond those shown too.
    """

    galleries: int = 4
    per_class: int = 0
    iterations: int = 64
    seed: int = 0
    all_sounds: bool = False


DEFAULT = Options()


def make(
    group: Group, number: int, place: Path, options: Options, cache_dir: Path | None
) -> tuple[Gallery, Path, list[str]]:
    """The gallery of a coreset, its folder of sounds, and what could not be shown.

    Args:
      group: of distillations; its first run is shown.
      number: of the group on the page.
      place: parent of the folder of sounds.
      options: what is shown.
      cache_dir: folder of downloads and features.

    Raises:
      UserError: the coreset is damaged.
    """
    run = group.first
    coreset = load_coreset(run.path / "coreset.npz")
    arrays = coreset.unpack()
    title = f"{run.result['dataset']}, {summary.name_of(group)}, seed {run.seed}"
    labels = np.asarray(arrays.labels)
    # The page embeds all that it shows, and a sound is a hundred times an image.
    each = options.per_class or max(1, _CARDS // len(coreset.class_names))
    shown = _first_of_each(labels.argmax(1), each)
    hidden = np.setdiff1d(np.arange(len(labels)), shown)
    listed = np.concatenate([shown, hidden]) if options.all_sounds else shown
    folder = place / tables.stem(title)
    notes, near = [], None
    total = len(listed) + len(shown)
    with progress.ticking(progress.bar(total, desc=title, unit="sound")) as bar:
        listen = lambda images: gallery.listen(
            images,
            coreset,
            seed=options.seed,
            iterations=options.iterations,
            done=bar.update,
        )
        own = listen(arrays.images[listed])
        names = audio_folder.write(own.waveforms, coreset, folder, listed)
        try:
            near = _near(arrays.images[shown], coreset, run, listen, cache_dir)
        except (UserError, OSError) as reason:
            notes.append(f"No real clips are shown next to {title}: {reason}")
    error = lambda heard: summary.spread(heard.convergence.tolist())
    caption = f"Spectral convergence of the inversion {error(own)}"
    if near:
        caption += f"; of the nearest real clips {error(near[0])}"
    if len(hidden):
        caption += f". {len(hidden)} more spectrograms are not shown"
        if options.all_sounds:
            caption += ", but among the WAV files"
    listing = folder.relative_to(place.parent) / "metadata.csv"
    caption += f". {listing} lists the WAV files."
    cards = _cards(own, near, shown, labels, names, coreset)
    return Gallery(number, title, caption, cards), folder, notes


def _first_of_each(classes: np.ndarray, count: int) -> np.ndarray:
    """Rows of the first few of each class, in class order."""
    rows = [np.flatnonzero(classes == c)[:count] for c in np.unique(classes)]
    return np.concatenate(rows)


def _near(images, coreset, run, listen, cache_dir):
    """The nearest real clips with their sounds.

    Raises:
      UserError: the dataset cannot be found, or has changed.
    """
    config = fields.from_dict(run.config)
    data = load_data(coreset, config, True, cache_dir)
    found = gallery.nearest(images, data.train)
    return listen(data.train.take(found.rows)), found


def _cards(own, near, shown, labels, names, coreset: Coreset) -> list[Card]:
    """One card per spectrogram, all on the same scale in dB."""
    heard = [own.log_mel[: len(shown)]] + ([near[0].log_mel] if near else [])
    limits = tuple(np.percentile(np.concatenate(heard), [1, 99.8]).tolist())
    rate, names_of = coreset.features.sample_rate, coreset.class_names
    spaced = lambda words: words.replace(";", ", ") if coreset.has_tags else words

    def side(sounds, place, title, caption, shares=()) -> Side:
        picture = gallery.picture(sounds.log_mel[place], limits)
        sound, media_type = gallery.sound(sounds.waveforms[place], rate)
        return Side(
            title,
            caption,
            html_page.data_address(picture, "image/png"),
            html_page.data_address(sound, media_type),
            shares,
        )

    cards = []
    for i, row in enumerate(shown):
        name = spaced(coreset.in_words(labels[row]))
        strongest = tuple(gallery.strongest(labels[row], names_of))
        left = side(own, i, name, names[i], strongest)
        right = None
        if near:
            clips, which = near
            right = side(
                clips,
                i,
                f"real: {spaced(tags.in_words(which.labels[i], names_of))}",
                f"nearest, {which.distances[i]:.2f} standard deviations per bin",
            )
        cards.append(Card(left, right))
    return cards
