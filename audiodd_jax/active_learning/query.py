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
from audiodd_jax.config.names import COMMITTEE, COVERING, DIVERSE
from audiodd_jax.coreset import selection
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.features.dataset import Dataset
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

    def too_few(label: int, available: int) -> UserError:
        return UserError(
            f"a balanced seed set of {count} clips needs {count // len(class_names)} "
            f"per class, but {class_names[label]!r} has {available} in the pool; lower "
            "--config.active.initial, or pass --config.active.initial_draw=uniform"
        )

    labels = np.asarray(labels)
    sizes = tags.counts(labels, len(class_names))
    if not tags.are_tags(labels):
        fewest = int(sizes.argmin())
        if sizes[fewest] < count // sizes.size:
            raise too_few(fewest, int(sizes[fewest]))
        # The first clip of every class in random order, then the second, and so on.
        ranks = selection.ranks_in_class(labels[order])
        return order[np.argsort(ranks, kind="stable")[:count]]
    # Each tag in turn takes its next clip. The rarest comes first, since it loses the
    # clips that other tags take.
    turns = np.argsort(sizes, kind="stable").tolist()
    waiting = {tag: iter(order[labels[order, tag] > 0].tolist()) for tag in turns}
    taken: dict[int, None] = {}
    while len(taken) < count:
        for tag in turns[: count - len(taken)]:
            row = next((row for row in waiting[tag] if row not in taken), None)
            if row is None:
                raise too_few(tag, len(taken) // len(turns))
            taken[row] = None
    return np.array(list(taken))


def uses_passes(acquisition_function: str) -> bool:
    """Returns whether an acquisition function scores clips by Monte Carlo passes."""
    return acquisition_function not in ("random", *COMMITTEE, *DIVERSE, *COVERING)


def clip_function(
    config: ActiveConfig, model: nn.Module, has_tags: bool = False
) -> monte_carlo.OfClips:
    """Maps clips to the inputs of a choice: features and log-probabilities or scores.

    Log-probabilities are for ``names.DIVERSE``, scores for the other functions, with
    features before them for a diverse batch. A committee's networks are stacked.

    Raises:
      UserError: the function needs dropout, which the network does not have.
    """
    if uses_passes(config.acquisition) and not model.dropout:
        raise UserError(
            f"{config.acquisition} scores clips by MC-dropout, which needs "
            "--config.model.dropout above 0, or for your own network a call method "
            "that takes drop"
        )

    def embed(network: Network, images: Array, *_: Array) -> Any:
        return monte_carlo.embed(model, network, images, has_tags)

    if config.acquisition in DIVERSE:
        return embed
    score = acquisition.score_of(config.acquisition)
    if has_tags:
        score = acquisition.over_tags(score)

    def score_clips(network: Network, images: Array, ids: Array, key: Array) -> Any:
        if config.acquisition in COMMITTEE:
            log_probs = monte_carlo.members(model, network, images, has_tags)
            network = _first(network)
        else:
            given = (model, network, images, ids, key, config.passes)
            log_probs = monte_carlo.dropout_passes(*given, has_tags)
        if not config.diversity:
            return score(log_probs)
        return embed(network, images)[0], score(log_probs)

    return score_clips


def _first(networks: Network) -> Network:
    return jax.tree.map(lambda x: x[0], networks)


def make_choose(
    config: ActiveConfig,
    model: nn.Module | None,
    data: Dataset,
    between: Callable[[], None],
    key: Key[Array, ""],
) -> Callable[..., Int[np.ndarray, " count"]]:
    """Makes ``choose(networks, labelled, count, passes_key, key)``.

    It returns the rows of ``count`` training clips to label next; ``networks`` are
    stacked, and the first is used, or all as a committee. The clips are put on the
    devices, or embedded, once. A sixth argument restricts the choice to some rows, its
    ``pool``.

    Args:
      model: the networks' module; ``names.COVERING`` need none.
      between: called after each chunk; may raise.
      key: key of the embedding.
    """
    name, clips = config.acquisition, data.train
    everything = np.arange(len(clips.labels))
    if name in COVERING:
        by = coverage.EMBEDDING
        if data.is_embedded:
            by = by._replace(encoded=clips)
        embedding = functools.cache(lambda: selection.embed(key, clips, by))

        def cover(
            _: Any,
            labelled: Int[np.ndarray, " l"],
            count: int,
            __: Any,
            key: Key[Array, ""],
            pool: Int[np.ndarray, " p"] = everything,
        ) -> Int[np.ndarray, " count"]:
            known = np.flatnonzero(np.isin(pool, labelled))
            given = (embedding()[pool], known, count, data.num_classes, key)
            return pool[coverage.choose(name, coverage.Query(*given))]

        return cover
    function = clip_function(config, model, data.has_tags)
    values_of = monte_carlo.over_pool(function, clips, config.chunk, between=between)

    def choose(
        networks: Network,
        labelled: Int[np.ndarray, " l"],
        count: int,
        passes_key: Key[Array, ""],
        key: Key[Array, ""],
        pool: Int[np.ndarray, " p"] = everything,
    ) -> Int[np.ndarray, " count"]:
        free = np.setdiff1d(pool, labelled)
        network = networks if name in COMMITTEE else _first(networks)
        values = lambda rows: values_of(network, rows, passes_key)
        query = (count, jnp.asarray(free, jnp.int32), key)
        if name == "random":
            chosen = acquisition.top(jnp.zeros(free.size), *query)
        elif name == "k_center":
            features = values(free)[0]
            centres = values(labelled)[0] if labelled.size else features[:0]
            chosen = acquisition.k_center(features, centres, *query)
        elif name == "badge":
            chosen = acquisition.badge(*values(free), *query)
        else:
            features, scores = None, values(free)
            if config.diversity:
                features, scores = scores
            if config.cost == "seconds":
                costs = jnp.asarray(data.seconds[free], jnp.float32)
                scores = acquisition.per_cost(scores, name, costs)
            if features is None:
                chosen = acquisition.top(scores, *query)
            else:
                given = (count, config.diversity, *query[1:])
                chosen = acquisition.diverse(features, scores, *given)
        return free[np.asarray(chosen)]

    return choose


def choose_by_class(
    choose: Callable[..., Int[np.ndarray, " count"]],
    networks: Network | None,
    data: Dataset,
    sizes: Int[np.ndarray, " c"],
    key: Key[Array, ""],
) -> Int[np.ndarray, " s"]:
    """Chooses ``sizes`` clips of the classes, by what ``make_choose`` makes.

    The labels are known here, and serve to restrict each choice to the clips of a
    class. Returns the rows in class order.
    """
    passes_key, key = jax.random.split(key)
    nothing = np.zeros(0, int)

    def of_class(_: Any, free: np.ndarray, count: int) -> Int[np.ndarray, " count"]:
        pool = np.flatnonzero(free)
        return choose(networks, nothing, count, passes_key, key, pool)

    return selection.by_class(of_class, data.train.labels, data.class_names, sizes)
