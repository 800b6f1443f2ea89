"""Kernel ridge regression in closed form, and its scores under random networks."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import Config, RandomNetworkConfig
from audiodd_jax.features import metric
from audiodd_jax.features.encoders import Embed
from audiodd_jax.features.labels import centred_targets
from audiodd_jax.kernels import embeddings, random_kernels
from audiodd_jax.kernels.random_kernels import Kernels
from audiodd_jax.networks import random_conv
from audiodd_jax.runtime.devices import NETWORKS, Grid
from audiodd_jax.runtime.memory import in_chunks

# Folded into the key, so that evaluation never uses the networks of distillation.
_EVALUATION = 0x7E57


def predict(
    k_bs: Float[Array, "b s"],
    k_ss: Float[Array, "s s"],
    y_support: Float[Array, "s c"],
    regularizer: float | Float[Array, ""],
) -> Float[Array, "b c"]:
    """Predicts ``k_bs (k_ss + lambda tr(k_ss)/s I)^-1 y`` for the batch, by Cholesky.

    Differentiable; the backward pass reuses the factor.
    """
    s = k_ss.shape[0]
    with jax.default_matmul_precision("highest"):
        diagonal = regularizer * jnp.trace(k_ss) / s * jnp.eye(s, dtype=k_ss.dtype)
        weights = jax.scipy.linalg.solve(k_ss + diagonal, y_support, assume_a="pos")
    return jnp.dot(k_bs, weights, precision=lax.Precision.HIGHEST)


class Scoring(NamedTuple):
    """Settings of kernel regression on a coreset.

    Attributes:
      num_networks: number of networks ``n`` that the kernels are averaged over.
      chunk: number of inputs that a network processes at once.
      regularizer: lambda, relative to the kernel's mean diagonal.
      embed: an encoder in the place of the networks; None: random networks.
    """

    network: RandomNetworkConfig
    num_networks: int
    chunk: int
    regularizer: float | Float[Array, ""]
    embed: Embed | None = None

    @classmethod
    def from_config(cls, config: Config, *, is_test: bool = False) -> "Scoring":
        """Scoring by networks like those that distil.

        On test clips they have their own width, and compute in float32.
        """
        network, evaluation = config.network, config.evaluation
        if is_test:
            width = evaluation.width or network.width
            network = dataclasses.replace(network, width=width, precision="float32")
        regularizer = config.rfad.regularizer
        return cls(network, evaluation.networks, evaluation.batch_size, regularizer)


class Score(NamedTuple):
    """Scores of predictions.

    Attributes:
      accuracy: fraction of clips whose largest prediction is correct, or its mean over
        classes; for tags, the mean average precision.
      error: standard error of ``accuracy``.
      loss: 1/2 mean squared error against the centred targets.
    """

    accuracy: Float[Array, ""]
    error: Float[Array, ""]
    loss: Float[Array, ""]


def predict_images(
    key: Key[Array, ""],
    images: Float[Array, "b *clip"],
    x_support: Float[Array, "s f t 1"],
    y_support: Float[Array, "s c"],
    scoring: Scoring,
    mesh: Mesh | None = None,
) -> Float[Array, "b c"]:
    """Predicts ``images`` from a coreset under ``n`` networks drawn by ``key``.

    The networks are scanned and the images processed in chunks, so that memory grows
    with neither. The devices of ``mesh`` share both. With an encoder, ``images`` may be
    embeddings.
    """
    if scoring.embed:
        kernels = embeddings.make(scoring.embed)
        found = kernels(key, images, x_support)
        return predict(*found, y_support, scoring.regularizer)
    config, n, chunk = scoring.network, scoring.num_networks, scoring.chunk

    def sums(key: Key[Array, ""], x_b: Array, x_s: Array, grid: Grid) -> Kernels:
        def add_network(sums: Kernels, slot: Any) -> tuple[Kernels, None]:
            number, is_own = slot
            network_key = jax.random.fold_in(key, number)
            network = random_conv.init(network_key, x_b.shape[1:3], config, x_b.dtype)
            phi = lambda part: random_conv.apply(network, part, config)
            phi_s = in_chunks(phi, x_s, chunk)
            rows = lambda part: random_kernels.accumulate(phi(part), phi_s)
            bs = in_chunks(rows, x_b, chunk)
            ss = random_kernels.accumulate(phi_s, phi_s)
            return random_kernels.add_kernels(sums, Kernels(bs, ss), is_own), None

        b, s = x_b.shape[0], x_s.shape[0]
        zeros = Kernels(jnp.zeros((b, s), x_b.dtype), jnp.zeros((s, s), x_b.dtype))
        return lax.scan(add_network, zeros, grid.share(NETWORKS, n))[0]

    kernels = random_kernels.average(sums, config, n, mesh)
    return predict(*kernels(key, images, x_support), y_support, scoring.regularizer)


def evaluation_key(seed: int | Int[Array, ""]) -> Key[Array, ""]:
    """Returns the key of an evaluation seed's networks."""
    return jax.random.fold_in(jax.random.key(_EVALUATION), seed)


def solved(
    x_support: Float[Array, "s f t 1"],
    y_support: Float[Array, "s c"],
    scoring: Scoring,
    seeds: Sequence[int],
) -> Callable[[Array], Array]:
    """Solves for the support set once; returns predictions as a function of images.

    They are averaged over the evaluation seeds.
    """
    plan = random_kernels.Plan(scoring.chunk, scoring.chunk)
    if scoring.embed:
        kernels = jax.jit(embeddings.make(scoring.embed))
    else:
        kernels = jax.jit(
            random_kernels.make(scoring.network, scoring.num_networks, plan=plan)
        )
    weights = {}
    for seed in seeds:
        k_ss = kernels(evaluation_key(seed), x_support, x_support).ss
        identity = jnp.eye(len(k_ss))
        weights[seed] = predict(identity, k_ss, y_support, scoring.regularizer)

    def outputs(images: Array, seed: int) -> Array:
        k_bs = kernels(evaluation_key(seed), images, x_support).bs
        return jnp.dot(k_bs, weights[seed], precision=lax.Precision.HIGHEST)

    return lambda images: sum(outputs(images, seed) for seed in seeds) / len(seeds)


def score(
    predictions: Float[Array, "b c"],
    labels: Int[Array, "b *c"],
    recordings: Int[Array, " b"] | None = None,
    weights: Float[Array, " b"] | None = None,
) -> Score:
    """Scores predictions; all recordings have the same weight.

    Args:
      labels: ``[b]`` classes, or ``[b, c]`` tags.
      recordings: number of each clip's recording; None: one clip per recording.
      weights: as in ``Clips``.
    """
    targets = centred_targets(labels, predictions.shape[1], predictions.dtype)
    losses = 0.5 * jnp.mean((targets - predictions) ** 2, axis=1)
    accuracy = metric.estimate(predictions, labels, recordings, weights)
    loss = metric.grouped_mean(losses, recordings, weights)
    return Score(accuracy.mean, accuracy.error, loss.mean)
