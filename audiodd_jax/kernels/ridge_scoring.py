"""Kernel ridge regression on a coreset with fresh random networks, for scoring."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.features.labels import centred_one_hot
from audiodd_jax.kernels import random_features, ridge
from audiodd_jax.networks import random_conv
from audiodd_jax.ops.chunked_map import in_chunks
from audiodd_jax.runtime.devices import BATCH, NETWORKS, Grid

_ALONE = Grid()


class Score(NamedTuple):
    """Quality of predictions.

    Attributes:
      accuracy: share of clips whose largest prediction is right.
      loss: 1/2 mean squared error against ``one_hot - 1/c``.
    """

    accuracy: Float[Array, ""]
    loss: Float[Array, ""]


def predict(
    key: Key[Array, ""],
    images: Float[Array, "b f t 1"],
    x_support: Float[Array, "s f t 1"],
    y_support: Float[Array, "s c"],
    *,
    num_networks: int,
    config: RandomNetworkConfig,
    regularizer: float | Float[Array, ""],
    chunk: int,
    grid: Grid = _ALONE,
) -> Float[Array, "b c"]:
    """Predictions of ``images`` from a coreset under ``n`` networks drawn by ``key``.

    The networks are scanned, and images taken ``chunk`` at a time, so that memory does
    not grow with either. On a grid of devices each takes its share of networks and
    images, and all return all predictions.
    """
    input_shape = images.shape[1:3]
    b, s = images.shape[0], x_support.shape[0]
    if grid.batch > 1:
        images = images[grid.share(BATCH, b).numbers]

    def add_network(sums, slot):
        number, is_own = slot
        network_key = jax.random.fold_in(key, number)
        network = random_conv.init(network_key, input_shape, config, images.dtype)
        phi = lambda part: random_conv.apply(network, part, config)
        phi_s = in_chunks(phi, x_support, chunk)
        rows = lambda part: random_features.accumulate(phi(part), phi_s)
        products = (
            in_chunks(rows, images, chunk),
            random_features.accumulate(phi_s, phi_s),
        )
        if is_own is not None:
            products = jax.tree.map(lambda k: jnp.where(is_own, k, 0), products)
        return jax.tree.map(jnp.add, sums, products), None

    sizes = ((images.shape[0], s), (s, s))
    zeros = tuple(jnp.zeros(size, images.dtype) for size in sizes)
    sums, _ = lax.scan(add_network, zeros, grid.share(NETWORKS, num_networks))
    d = random_conv.num_features(input_shape, config)
    k_bs, k_ss = (
        random_features.scale_kernel(k, num_networks, d, config)
        for k in grid.total(sums, NETWORKS)
    )
    own = ridge.predict(k_bs, k_ss, y_support, regularizer)
    return grid.gather(own, BATCH, b)


def score(predictions: Float[Array, "b c"], labels: Int[Array, " b"]) -> Score:
    """Accuracy and loss of predictions."""
    targets = centred_one_hot(labels, predictions.shape[1], predictions.dtype)
    accuracy = jnp.mean(jnp.argmax(predictions, axis=1) == labels)
    return Score(accuracy, 0.5 * jnp.mean((targets - predictions) ** 2))
