"""Choice of the clips to label: the random seed set, then queries by a network."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from audiodd_jax.active_learning import acquisition, coverage, monte_carlo
from audiodd_jax.config import ActiveConfig
from audiodd_jax.features.dataset import DeviceSplit, HostSplit, Split
from audiodd_jax.networks.inference import Network
from audiodd_jax.runtime.errors import UserError


def seed_set(
    key: Key[Array, ""],
    labels: Int[Array, " b"],
    count: int,
    class_names: tuple[str, ...],
    draw: str,
) -> Int[np.ndarray, " l"]:
    """The random clips that are labelled first.

    Args:
      key: of the draw.
      labels: of the pool.
      count: clips to draw.
      class_names: the classes.
      draw: ``uniform``, or ``balanced``: the same number per class, with remainders in
        random classes.

    Raises:
      UserError: a class has too few clips.
    """
    order = np.asarray(jax.random.permutation(key, len(labels)))
    if draw == "uniform":
        return order[:count]
    shuffled = np.asarray(labels)[order]
    classes = len(class_names)
    sizes = np.bincount(shuffled, minlength=classes)
    fewest = int(sizes.argmin())
    if sizes[fewest] < count // classes:
        raise UserError(
            f"a balanced seed set of {count} clips needs {count // classes} per class, "
            f"but {class_names[fewest]!r} has {sizes[fewest]} in the pool; lower "
            "--config.active.initial, or pass --config.active.initial_draw=uniform"
        )
    by_class = np.argsort(shuffled, kind="stable")
    rank = np.empty(len(labels), int)
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # The first clip of every class in random order, then the second, and so on.
    return order[np.argsort(rank, kind="stable")[:count]]


def uses_passes(acquisition_function: str) -> bool:
    """Whether a function scores clips by Monte Carlo passes."""
    others = ("random", *acquisition.DIVERSE, *coverage.COVERS)
    return acquisition_function not in others


def clip_function(config: ActiveConfig, model: nn.Module) -> monte_carlo.OfClips:
    """What an acquisition function reads of clips: scores, or features and outputs."""
    name = config.acquisition
    looks_at_features = name in acquisition.DIVERSE
    score = None if looks_at_features else acquisition.score_of(name)

    def of_clips(network: Network, images: Array, ids: Array, key: Array) -> Any:
        if looks_at_features:
            return monte_carlo.embed(model, network, images)
        log_probs = monte_carlo.dropout_passes(
            model, network, images, ids, key, config.passes
        )
        return score(log_probs)

    return of_clips


def make_choose(
    config: ActiveConfig,
    model: nn.Module,
    clips: Split | DeviceSplit | HostSplit,
    between: Callable[[], None],
    num_classes: int,
    key: Key[Array, ""],
) -> Callable[..., Int[np.ndarray, " k"]]:
    """Returns ``choose(networks, labelled, count, passes_key, key)``.

    It returns the rows of the clips to label, so that ``count`` clips are labelled in
    total; ``networks`` are stacked, and the first is used. The pool is put on the
    devices, or embedded, once.

    Args:
      config: acquisition function, passes and chunk.
      model: the network.
      clips: the pool.
      between: called after each chunk; may raise.
      num_classes: ``c``.
      key: of the embedding.
    """
    name = config.acquisition
    if name in coverage.COVERS:
        embedding = functools.cache(lambda: coverage.embed(key, clips))
        return lambda _, labelled, count, passes_key, key: coverage.choose(
            name,
            coverage.Query(
                embedding(), labelled, count - labelled.size, num_classes, key
            ),
        )
    of_clips = clip_function(config, model)
    pool = monte_carlo.make_pool(of_clips, config.chunk, between=between)
    placed = pool.place(clips)
    everything = np.arange(len(clips.labels))

    def choose(
        networks: Network,
        labelled: Int[np.ndarray, " l"],
        count: int,
        passes_key: Key[Array, ""],
        key: Key[Array, ""],
    ) -> Int[np.ndarray, " k"]:
        network = jax.tree.map(lambda x: x[0], networks)
        free = np.setdiff1d(everything, labelled)
        over = functools.partial(pool.over, placed, network, key=passes_key)
        wanted, ids = count - labelled.size, jnp.asarray(free, jnp.int32)
        if name == "random":
            places = acquisition.top(jnp.zeros(free.size), wanted, ids, key)
        elif name == "k_center":
            known, found = over(rows=labelled)[0], over(rows=free)[0]
            places = acquisition.k_center(found, known, wanted, ids, key)
        elif name == "badge":
            places = acquisition.badge(*over(rows=free), wanted, ids, key)
        else:
            places = acquisition.top(over(rows=free), wanted, ids, key)
        return free[np.asarray(places)]

    return choose
