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
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.features.clips import Clips
from audiodd_jax.networks.inference import Network


def seed_set(
    key: Key[Array, ""],
    labels: Int[Array, "b *c"],
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
        random classes; of tags with remainders in the rarest.

    Raises:
      UserError: a class has too few clips.
    """
    order = np.asarray(jax.random.permutation(key, len(labels)))
    if draw == "uniform":
        return order[:count]
    if tags.are_tags(labels):
        return _in_turn(order, np.asarray(labels), count, class_names)
    shuffled = np.asarray(labels)[order]
    classes = len(class_names)
    sizes = np.bincount(shuffled, minlength=classes)
    fewest = int(sizes.argmin())
    if sizes[fewest] < count // classes:
        raise _too_few(count, class_names, fewest, int(sizes[fewest]))
    by_class = np.argsort(shuffled, kind="stable")
    rank = np.empty(len(labels), int)
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # The first clip of every class in random order, then the second, and so on.
    return order[np.argsort(rank, kind="stable")[:count]]


def _too_few(
    count: int, class_names: tuple[str, ...], fewest: int, there: int
) -> UserError:
    """The error of a class without enough clips for a balanced seed set."""
    return UserError(
        f"a balanced seed set of {count} clips needs {count // len(class_names)} per "
        f"class, but {class_names[fewest]!r} has {there} in the pool; lower "
        "--config.active.initial, or pass --config.active.initial_draw=uniform"
    )


def _in_turn(
    order: Int[np.ndarray, " b"],
    labels: Int[np.ndarray, "b c"],
    count: int,
    class_names: tuple[str, ...],
) -> Int[np.ndarray, " l"]:
    """A balanced draw of clips with tags: each tag in turn takes its next free clip.

    The rarest tag comes first, since a clip that another tag takes is lost to it.

    Raises:
      UserError: a tag has too few clips.
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
    """Whether a function scores clips by Monte Carlo passes."""
    others = ("random", *acquisition.DIVERSE, *coverage.COVERS)
    return acquisition_function not in others


def clip_function(
    config: ActiveConfig, model: nn.Module, has_tags: bool = False
) -> monte_carlo.OfClips:
    """What an acquisition function reads of clips: scores, or features and outputs."""
    name = config.acquisition
    looks_at_features = name in acquisition.DIVERSE
    score = None if looks_at_features else acquisition.score_of(name)
    if score and has_tags:
        score = acquisition.over_tags(score)

    def of_clips(network: Network, images: Array, ids: Array, key: Array) -> Any:
        if looks_at_features:
            return monte_carlo.embed(model, network, images, has_tags)
        log_probs = monte_carlo.dropout_passes(
            model, network, images, ids, key, config.passes, has_tags
        )
        return score(log_probs)

    return of_clips


def make_choose(
    config: ActiveConfig,
    model: nn.Module,
    clips: Clips,
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
    of_clips = clip_function(config, model, tags.are_tags(clips.labels))
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
