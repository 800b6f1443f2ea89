"""Kernel ridge regression on a coreset with fresh random networks, for scoring."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.kernels import random_features, ridge
from audiodd_jax.networks import random_conv


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
    regularizer: float,
    chunk: int,
) -> Float[Array, "b c"]:
    """Predictions of ``images`` from a coreset under ``n`` networks drawn by ``key``.

    The networks are scanned, and ``images`` taken ``chunk`` at a time, so that memory
    does not grow with either.
    """
    input_shape = images.shape[1:3]
    b, s = images.shape[0], x_support.shape[0]

    def add_network(sums, network_key):
        network = random_conv.init(network_key, input_shape, config, images.dtype)
        phi_s = random_conv.apply(network, x_support, config)

        def rows(part: Array) -> Array:
            phi = random_conv.apply(network, part, config)
            return random_features.accumulate(phi, phi_s)

        k_bs, k_ss = sums
        k_bs = k_bs + random_features.in_chunks(rows, images, chunk)
        return (k_bs, k_ss + random_features.accumulate(phi_s, phi_s)), None

    zeros = (jnp.zeros((b, s), images.dtype), jnp.zeros((s, s), images.dtype))
    keys = random_features.network_keys(key, num_networks)
    sums, _ = lax.scan(add_network, zeros, keys)
    d = random_conv.num_features(input_shape, config)
    k_bs, k_ss = (
        random_features.scale_kernel(k, num_networks, d, config) for k in sums
    )
    return ridge.predict(k_bs, k_ss, y_support, regularizer)


def score(predictions: Float[Array, "b c"], labels: Int[Array, " b"]) -> Score:
    """Accuracy and loss of predictions."""
    targets = ridge.centred_one_hot(labels, predictions.shape[1], predictions.dtype)
    accuracy = jnp.mean(jnp.argmax(predictions, axis=1) == labels)
    return Score(accuracy, 0.5 * jnp.mean((targets - predictions) ** 2))
