"""A coreset in a report: heard, beside the nearest real clips, which are heard too."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiodd_jax.artifacts.coreset_file import Coreset, load_coreset
from audiodd_jax.config import fields
from audiodd_jax.jobs.coreset_data import load_data
from audiodd_jax.report import gallery, html_page, summary, tables
from audiodd_jax.report.html_page import Card, Gallery, Side
from audiodd_jax.report.run_index import Group
from audiodd_jax.runtime.errors import UserError

# Spectrograms of a coreset on the page, unless told.
_CARDS = 100


class Options(NamedTuple):
    """What of the coresets is shown and made audible.

    Attributes:
      galleries: coresets at most, the best of each dataset and method first.
      per_class: spectrograms of a class at most; 0: a hundred of all classes.
      iterations: of Griffin-Lim.
      seed: of its first phases.
    """

    galleries: int = 4
    per_class: int = 0
    iterations: int = 64
    seed: int = 0


DEFAULT = Options()


def make(
    group: Group, place: Path, options: Options, cache_dir: Path | None
) -> tuple[Gallery, Path, list[str]]:
    """A coreset on the page, its folder of sounds, and what could not be shown.

    Args:
      group: of distillations; its first run is shown.
      place: where the folder of sounds goes.
      options: what is shown.
      cache_dir: where downloads and features are kept.

    Raises:
      UserError: the coreset is damaged.
    """
    run = group.first
    coreset = load_coreset(run.path / "coreset.npz")
    arrays = coreset.unfolded()
    listen = lambda images: gallery.listen(
        images, coreset, seed=options.seed, iterations=options.iterations
    )
    own = listen(arrays.images)
    title = f"{run.result['dataset']}, {summary.name_of(group)}, seed {run.seed}"
    folder = place / tables.stem(title)
    names = gallery.write_sounds(own, coreset, folder)
    labels = np.asarray(arrays.labels)
    # A page holds all that it shows: sounds of seconds are a hundred times a picture.
    each = options.per_class or max(1, _CARDS // len(coreset.class_names))
    shown = _first_of_each(labels.argmax(1), each)
    error = lambda heard: summary.spread(heard.convergence.tolist())
    told = f"Spectral convergence of the inversion {error(own)}"
    notes, near = [], None
    try:
        near = _near(arrays.images[shown], coreset, run, listen, cache_dir)
        told += f"; of the real clips beside them {error(near[0])}"
    except UserError as reason:
        notes.append(f"No real clips are shown beside {title}: {reason}")
    hidden = len(labels) - len(shown)
    if hidden:
        told += f". {hidden} more spectrograms are among the WAV files"
    told += f". WAV files: {folder.relative_to(place.parent)}/metadata.csv lists them."
    cards = _cards(own, near, shown, labels, names, coreset)
    return Gallery(title, told, cards), folder, notes


def _first_of_each(classes: np.ndarray, count: int) -> np.ndarray:
    """Rows of the first few of each class, in class order."""
    rows = [np.flatnonzero(classes == c)[:count] for c in np.unique(classes)]
    return np.concatenate(rows)


def _near(images, coreset, run, listen, cache_dir):
    """The nearest real clips, heard, and which they are.

    Raises:
      UserError: the dataset is not there, or not as it was.
    """
    config = fields.from_dict(run.config)
    data = load_data(coreset, config, True, cache_dir)
    found = gallery.nearest(images, data.train)
    return listen(data.train.take(found.rows)), found


def _cards(own, near, shown, labels, names, coreset: Coreset) -> list[Card]:
    """A card a spectrogram, all on one scale of decibels."""
    heard = [own.log_mel[shown]] + ([near[0].log_mel] if near else [])
    limits = tuple(np.percentile(np.concatenate(heard), [1, 99.8]).tolist())
    rate = coreset.features.sample_rate

    def side(sounds, place, title, told, shares=()) -> Side:
        picture = gallery.picture(sounds.log_mel[place], limits)
        sound, media_type = gallery.sound(sounds.waveforms[place], rate)
        return Side(
            title,
            told,
            html_page.data_address(picture, "image/png"),
            html_page.data_address(sound, media_type),
            shares,
        )

    cards = []
    for i, row in enumerate(shown):
        name = coreset.class_names[labels[row].argmax()]
        strongest = tuple(gallery.strongest(labels[row], coreset.class_names))
        left = side(own, row, name, names[row], strongest)
        right = None
        if near:
            clips, which = near
            right = side(
                clips,
                i,
                f"real: {coreset.class_names[which.labels[i]]}",
                f"nearest, {which.distances[i]:.2f} deviations a bin away",
            )
        cards.append(Card(left, right))
    return cards
