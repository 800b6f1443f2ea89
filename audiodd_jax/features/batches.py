"""Random batches of training clips: on the device, or streamed from the cache.

Step ``i`` draws from ``fold_in(root, i)``, so that both ways give the same batches for
the same key, and a run that goes on at step ``i`` those of one that ran through.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int, Key, Num

from audiodd_jax.features import normalize
from audiodd_jax.features.prepared import DeviceSplit, HostSplit, Split

_THREADS = 2
# Chunks read ahead of the device.
_AHEAD = 2


class Streamed(NamedTuple):
    """Batches of several steps, as they lie in the cache.

    Attributes:
      features: ``[steps, b, f, t]`` float16, dB.
      labels: ``[steps, b]``.
    """

    features: Num[np.ndarray | Array, "steps b f t"]
    labels: Int[np.ndarray | Array, "steps b"]


def step_keys(
    root: Key[Array, ""], step: Int[Array, ""] | int
) -> tuple[Key[Array, ""], Key[Array, ""]]:
    """The keys of a step: for its batch's indices, and for its augmentation."""
    index_key, augment_key = jax.random.split(jax.random.fold_in(root, step))
    return index_key, augment_key


def draw_indices(key: Key[Array, ""], clips: int, size: int) -> Int[Array, " b"]:
    """``size`` of ``clips`` without replacement; all of them if there are fewer."""
    return jax.random.permutation(key, clips)[: min(size, clips)]


def gather(key: Key[Array, ""], data: Split | DeviceSplit, size: int) -> Split:
    """A batch of a split that lies on the device."""
    indices = draw_indices(key, data.labels.size, size)
    return Split(data.take(indices), data.labels[indices])


def standardized(batch: Streamed, stats: normalize.Normalization) -> Split:
    """One step's batch as the device's own would be."""
    return Split(normalize.apply(batch.features, stats), batch.labels)


def stream(
    split: HostSplit,
    root: Key[Array, ""],
    size: int,
    first: int,
    last: int,
    together: int,
) -> Iterator[Streamed]:
    """Batches of the steps ``first`` to ``last``, ``together`` steps at a time.

    Read ahead by grain in threads; the last chunk may hold fewer steps.

    Args:
      split: the clips to draw from.
      root: the key that the batches come from.
      size: clips a batch.
      first: step.
      last: step, not included.
      together: steps in a chunk.
    """
    import grain  # a second that only streaming runs pay

    clips, cpu = split.labels.size, jax.local_devices(backend="cpu")[0]
    root = jax.device_put(root, cpu)
    labels = np.asarray(split.labels)
    draw = jax.jit(lambda step: draw_indices(step_keys(root, step)[0], clips, size))

    class Steps:
        """The source that grain reads: a step's batch by its number."""

        def __len__(self) -> int:
            return last

        def __getitem__(self, step: int) -> Streamed:
            with jax.default_device(cpu):
                indices = np.asarray(draw(step))
            return Streamed(split.read(indices), labels[indices])

    chunks = grain.MapDataset.source(Steps())[first:].batch(together)
    options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_AHEAD)
    return iter(chunks.to_iter_dataset(options))
