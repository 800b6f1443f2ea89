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
from audiodd_jax.coreset.selection import ranks_in_class
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.features.clips import Clips
from audiodd_jax.networks.models import Network


def seed_set(
    key: Key[Array, ""],
    labels: Int[Array, "b *c"],
    count: int,
    class_names: tuple[str, ...],
    draw: str,
) -> Int[np.ndarray, " l"]:
    """Draws the clips of the pool that are labelled first.

    Args:
      draw: ``uniform``, or ``balanced``: the same number per class, with the remainder
        in random classes, or with the rarest tags.

    Raises:
      UserError: a class has too few clips.
    """
    order = np.asarray(jax.random.permutation(key, len(labels)))
    if draw == "uniform":
        return order[:count]
    labels = np.asarray(labels)
    if tags.are_tags(labels):
        return _in_turn(order, labels, count, class_names)
    sizes = tags.counts(labels, len(class_names))
    fewest = int(sizes.argmin())
    if sizes[fewest] < count // len(class_names):
        raise _too_few(count, class_names, fewest, int(sizes[fewest]))
    # The first clip of every class in random order, then the second, and so on.
    ranks = ranks_in_class(labels[order])
    return order[np.argsort(ranks, kind="stable")[:count]]


def _too_few(
    count: int, class_names: tuple[str, ...], fewest: int, available: int
) -> UserError:
    """The error of a class without enough clips for a balanced seed set."""
    return UserError(
        f"a balanced seed set of {count} clips needs {count // len(class_names)} per "
        f"class, but {class_names[fewest]!r} has {available} in the pool; lower "
        "--config.active.initial, or pass --config.active.initial_draw=uniform"
    )


def _in_turn(
    order: Int[np.ndarray, " b"],
    labels: Int[np.ndarray, "b c"],
    count: int,
    class_names: tuple[str, ...],
) -> Int[np.ndarray, " l"]:
    """Draws a balanced set of clips with tags: each tag in turn takes its next clip.

    The rarest tag comes first, since it loses the clips that other tags take.
    """
    turns = np.argsort(tags.counts(labels, len(class_names)), kind="stable").tolist()
    waiting = {tag: iter(order[labels[order, tag] > 0].tolist()) for tag in turns}
    taken: dict[int, None] = {}
    while len(taken) < count:
        number = len(taken) // len(turns)
        for tag in turns[: count - len(taken)]:
            row = next((row for row in waiting[tag] if row not in taken), None)
            if row is None:
                raise _too_few(count, class_names, tag, number)
            taken[row] = None
    return np.array(list(taken))


def uses_passes(acquisition_function: str) -> bool:
    """Returns whether an acquisition function scores clips by Monte Carlo passes."""
    others = ("random", *acquisition.DIVERSE, *coverage.COVERS)
    return acquisition_function not in others


def clip_function(
    config: ActiveConfig, model: nn.Module, has_tags: bool = False
) -> monte_carlo.OfClips:
    """Maps clips to the inputs of a choice: scores, or features and log-probabilities.

    Features are for ``acquisition.DIVERSE``, scores for the other functions.
    """
    name = config.acquisition

    def embed(network: Network, images: Array, *_: Array) -> Any:
        return monte_carlo.embed(model, network, images, has_tags)

    if name in acquisition.DIVERSE:
        return embed
    score = acquisition.score_of(name)
    if has_tags:
        score = acquisition.over_tags(score)

    def score_clips(network: Network, images: Array, ids: Array, key: Array) -> Any:
        log_probs = monte_carlo.dropout_passes(
            model, network, images, ids, key, config.passes, has_tags
        )
        return score(log_probs)

    return score_clips


def make_choose(
    config: ActiveConfig,
    model: nn.Module,
    clips: Clips,
    between: Callable[[], None],
    num_classes: int,
    key: Key[Array, ""],
) -> Callable[..., Int[np.ndarray, " k"]]:
    """Makes ``choose(networks, labelled, count, passes_key, key)``.

    It returns the rows of the clips to label, so that ``count`` clips are labelled in
    total; ``networks`` are stacked, and the first is used. The pool is put on the
    devices, or embedded, once.

    Args:
      between: called after each chunk; may raise.
      key: key of the embedding.
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
    function = clip_function(config, model, tags.are_tags(clips.labels))
    pool = monte_carlo.Pool(function, clips, config.chunk, between=between)
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
        values = lambda rows: pool.map(network, rows, passes_key)
        query = (count - labelled.size, jnp.asarray(free, jnp.int32), key)
        if name == "random":
            chosen = acquisition.top(jnp.zeros(free.size), *query)
        elif name == "k_center":
            centres, features = values(labelled)[0], values(free)[0]
            chosen = acquisition.k_center(features, centres, *query)
        elif name == "badge":
            chosen = acquisition.badge(*values(free), *query)
        else:
            chosen = acquisition.top(values(free), *query)
        return free[np.asarray(chosen)]

    return choose
