"""Random batches of training clips, from the device or streamed from the cache.

Step ``i`` draws from ``fold_in(root, i)``, so that both storages yield the same batches
for the same key, and a resumed run gets the batches of an uninterrupted one.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Key, Num

from audiodd_jax.features import normalization
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.labels import clip_weights
from audiodd_jax.runtime.environment import standard_numerics

_THREADS = 2
# Chunks that are read ahead of the device.
_AHEAD = 2


class Streamed(NamedTuple):
    """Batches of several steps, as stored in the cache: float16 in dB.

    Labels are classes, tags, or the clips' rows of another table.
    """

    features: Num[np.ndarray | Array, "steps *b f t"]
    labels: Num[np.ndarray | Array, "steps *b"] | Num[np.ndarray | Array, "steps *b c"]


def step_keys(
    root: Key[Array, ""], step: Int[Array, ""] | int
) -> tuple[Key[Array, ""], Key[Array, ""]]:
    """Returns the keys of a step, for the indices of its batch and its augmentation."""
    index_key, augment_key = jax.random.split(jax.random.fold_in(root, step))
    return index_key, augment_key


# Draws the indices of a batch from all clips, without reading spectrograms.
Draw = Callable[[Key[Array, ""], Any], Int[Array, " b"]]


def uniform(size: int, rows: Int[np.ndarray, " n"] | None = None) -> Draw:
    """Draws ``size`` clips without replacement, or all if there are fewer.

    It draws from anything with labels: clips, or a coreset's spectrograms. ``rows`` are
    those to draw from, which may name a clip more than once; None: all.
    """

    def draw(key: Key[Array, ""], data: Any) -> Int[Array, " b"]:
        clips = data.labels.shape[0]
        choices = clips if rows is None else jnp.asarray(rows)
        return jax.random.permutation(key, choices)[: min(size, clips)]

    return draw


def oversampled(labels: Int[np.ndarray | Array, " b"]) -> Int[np.ndarray, " n"]:
    """Returns the rows of all clips, with every class as often as the largest.

    The clips of smaller classes are repeated in turn.
    """
    labels = np.asarray(labels)
    most = np.bincount(labels).max()
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.concatenate([np.resize(rows, most) for rows in members])


def by_recording(num_classes: int, size: int) -> Draw:
    """Draws ``size`` clips, each from a random recording of a random class.

    Clips are drawn with replacement, at most as many as the split has. All classes have
    the same weight, and so do all recordings of a class, however many clips they have.
    """

    def draw(key: Key[Array, ""], data: Clips) -> Int[Array, " b"]:
        weights = clip_weights(data.labels, num_classes, data.recordings)
        count = min(size, data.labels.shape[0])
        return jax.random.categorical(key, jnp.log(weights), shape=(count,))

    return draw


def balanced(num_classes: int, per_class: int) -> Draw:
    """Draws ``per_class`` clips of each class without replacement, in class order.

    Smaller classes repeat their clips in turn; every class must have a clip.
    """

    def draw(key: Key[Array, ""], data: Clips) -> Int[Array, " b"]:
        labels = data.labels
        # Shuffled, then sorted stably by class: each class's clips in random order.
        order = jax.random.permutation(key, labels.shape[0])
        order = order[jnp.argsort(labels[order], stable=True)]
        counts = jnp.bincount(labels, length=num_classes)
        starts = jnp.cumsum(counts) - counts
        offsets = jnp.arange(per_class) % counts[:, None]
        return order[(starts[:, None] + offsets).reshape(-1)]

    return draw


def gather(key: Key[Array, ""], data: Clips, draw: Draw) -> Clips:
    """Draws a batch of clips that are on the device."""
    indices = draw(key, data)
    return Clips(data.take(indices), data.labels[indices])


def standardized(batch: Streamed, stats: normalization.Normalization) -> Clips:
    """Standardises the streamed batch of one step."""
    return Clips(normalization.apply(batch.features, stats), batch.labels)


def epoch_rows(
    key: Key[Array, ""], clips: int, size: int, first: Int[Array, ""] | int, length: int
) -> Int[Array, "steps b"]:
    """Returns the indices of the batches of ``length`` steps from step ``first``.

    Epoch ``e`` is shuffled by ``fold_in(key, e)``. A batch may end one epoch and begin
    the next, so that all batches have ``size`` clips (or all clips, if fewer).
    """
    b = min(size, clips)
    epoch, offset = first * b // clips, first * b % clips
    epochs = epoch + jnp.arange((length * b - 1) // clips + 2)
    order = lambda epoch: jax.random.permutation(jax.random.fold_in(key, epoch), clips)
    rows = jax.vmap(order)(epochs).reshape(-1)
    return lax.dynamic_slice_in_dim(rows, offset, length * b).reshape(length, b)


def stream(
    split: Clips,
    table: Num[np.ndarray, "clips ..."],
    draw: Callable[[Key[Array, "..."], Int[Array, ""]], Int[Array, "..."]],
    root: Key[Array, "..."],
    first: int,
    last: int,
    together: int,
) -> Iterator[Streamed]:
    """Yields the batches of the steps ``first`` to ``last``, ``together`` at a time.

    Threads of grain read ahead; the last chunk may have fewer steps.

    Args:
      split: clips to draw from, in the cache.
      table: one row per clip, such as its label.
      draw: maps ``(root, step)`` to the indices of a step's clips; ``root`` may be
        several keys.
    """
    import grain  # takes a second, and only streaming runs need it

    cpu = jax.local_devices(backend="cpu")[0]
    root, draw = jax.device_put(root, cpu), jax.jit(draw)
    is_wide = jax.config.jax_enable_x64

    class Steps:
        """Data source of grain: returns a step's batch by its index."""

        def __len__(self) -> int:
            return last

        def __getitem__(self, step: int) -> Streamed:
            with standard_numerics(is_wide), jax.default_device(cpu):
                indices = np.asarray(draw(root, step))
            return Streamed(split.read(indices), table[indices])

    chunks = grain.MapDataset.source(Steps())[first:].batch(together)
    options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_AHEAD)
    return iter(chunks.to_iter_dataset(options))
