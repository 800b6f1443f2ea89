"""Scores of kernel ridge regression on a coreset, under fresh random networks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.features import groups, metric
from audiodd_jax.features.labels import centred_targets
from audiodd_jax.kernels import random_features, ridge
from audiodd_jax.kernels.random_kernels import Kernels, sum_over_devices
from audiodd_jax.networks import random_conv
from audiodd_jax.runtime.chunked_map import in_chunks
from audiodd_jax.runtime.devices import NETWORKS, Grid


class Score(NamedTuple):
    """Quality of predictions.

    Attributes:
      accuracy: fraction of clips whose largest prediction is correct; of tags, the
        mean average precision.
      error: its standard error.
      loss: 1/2 mean squared error against the centred targets.
    """

    accuracy: Float[Array, ""]
    error: Float[Array, ""]
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
    mesh: Mesh | None = None,
) -> Float[Array, "b c"]:
    """Predictions of ``images`` from a coreset under ``n`` networks drawn by ``key``.

    Networks are scanned and images processed in chunks: memory grows with neither.

    Args:
      key: draws the networks.
      images: inputs to predict.
      x_support: the coreset's spectrograms.
      y_support: their labels.
      num_networks: ``n``.
      config: settings of the random networks.
      regularizer: lambda, relative to the kernel's mean diagonal.
      chunk: inputs processed at once.
      mesh: devices that share networks and images; None: one device.
    """

    def sums(key: Key[Array, ""], x_b: Array, x_s: Array, grid: Grid) -> Kernels:
        def add_network(sums: Kernels, slot: Any) -> tuple[Kernels, None]:
            number, is_own = slot
            network_key = jax.random.fold_in(key, number)
            network = random_conv.init(network_key, x_b.shape[1:3], config, x_b.dtype)
            phi = lambda part: random_conv.apply(network, part, config)
            phi_s = in_chunks(phi, x_s, chunk)
            rows = lambda part: random_features.accumulate(phi(part), phi_s)
            products = Kernels(
                in_chunks(rows, x_b, chunk), random_features.accumulate(phi_s, phi_s)
            )
            if is_own is not None:
                products = jax.tree.map(lambda k: jnp.where(is_own, k, 0), products)
            return jax.tree.map(jnp.add, sums, products), None

        b, s = x_b.shape[0], x_s.shape[0]
        zeros = Kernels(jnp.zeros((b, s), x_b.dtype), jnp.zeros((s, s), x_b.dtype))
        return lax.scan(add_network, zeros, grid.share(NETWORKS, num_networks))[0]

    totals = sum_over_devices(sums, mesh)(key, images, x_support)
    d = random_conv.num_features(images.shape[1:3], config)
    k_bs, k_ss = (
        random_features.scale_kernel(k, num_networks, d, config) for k in totals
    )
    return ridge.predict(k_bs, k_ss, y_support, regularizer)


def score(
    predictions: Float[Array, "b c"],
    labels: Int[Array, "b *c"],
    recordings: Int[Array, " b"] | None = None,
) -> Score:
    """Measure and loss of predictions; each recording weighs the same.

    Args:
      predictions: of the clips.
      labels: their classes or tags.
      recordings: number of each clip's recording; None: one clip of each.
    """
    targets = centred_targets(labels, predictions.shape[1], predictions.dtype)
    losses = 0.5 * jnp.mean((targets - predictions) ** 2, axis=1)
    found = metric.estimate(predictions, labels, recordings)
    return Score(*found, groups.estimate(losses, recordings).mean)
