"""A pool of networks of different ages, trained on the coreset while it is learnt.

The age of a network is the number of its training steps, each an Adam step on

    1/2 mean_i sum_c (f(x_i)_c - y_ic)^2

over a batch of the coreset. At the start network i of p has age ``i * max_age // p``,
so that the networks expire one by one: a network that would reach ``max_age`` is
replaced by a fresh one. (In the authors' program the first networks have these ages,
but are untrained.)

References:
  Zhou, Nezhadarya, Ba, *Dataset Distillation using Neural Feature Regression*, NeurIPS
  2022, algorithm 1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import FRePoConfig
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation import matching_methods
from audiodd_jax.features import batches
from audiodd_jax.networks import models
from audiodd_jax.networks.models import Variables
from audiodd_jax.runtime.memory import in_chunks


class Member(NamedTuple):
    """A network of the pool, or all ``p`` of them, stacked along a leading axis.

    Attributes:
      params: parameters of the network.
      opt_state: state of its optimiser.
      age: ``[]`` number of training steps taken.
    """

    params: Any
    opt_state: optax.OptState
    age: Int[Array, "*p"]


class Pool(NamedTuple):
    """Functions on the networks of a pool.

    Attributes:
      init: ``(key, coreset) -> members``, of staggered ages.
      advance: ``(member, key, coreset) -> member``, a step older or renewed.
    """

    init: Callable[[Key[Array, ""], CoresetArrays], Member]
    advance: Callable[[Member, Key[Array, ""], CoresetArrays], Member]


def take(pool: Member, index: Int[Array, ""] | int) -> Member:
    """Returns a network of the pool."""
    return jax.tree.map(lambda x: x[index], pool)


def put(pool: Member, index: Int[Array, ""] | int, member: Member) -> Member:
    """Returns the pool with a network replaced."""
    return jax.tree.map(lambda x, new: x.at[index].set(new), pool, member)


def training_loss(
    params: Any,
    model: nn.Module,
    images: Float[Array, "k f t 1"],
    labels: Float[Array, "k c"],
    chunk: int = 0,
) -> Float[Array, ""]:
    """Returns half the squared error of a network, averaged over spectrograms.

    At most ``chunk`` spectrograms are processed at once; 0: all.
    """

    def outputs(rows: Array) -> Array:
        return models.logits(model, Variables(params, {}), rows)

    out = in_chunks(jax.checkpoint(outputs) if chunk else outputs, images, chunk)
    return 0.5 * jnp.mean(jnp.sum((out - labels) ** 2, axis=1))


def make(model: nn.Module, config: FRePoConfig, chunk: int = 0) -> Pool:
    """Returns the functions of a pool of networks.

    Training processes at most ``chunk`` spectrograms at once; 0: all.
    """
    tx = optax.adam(config.network_learning_rate)
    draw = batches.uniform(config.network_batch)

    def fresh(key: Key[Array, ""], images: Array) -> Member:
        params = matching_methods.fresh(key, model, images)
        return Member(params, tx.init(params), jnp.zeros((), jnp.int32))

    def train(member: Member, key: Key[Array, ""], coreset: CoresetArrays) -> Member:
        rows = draw(key, coreset)
        grads = jax.grad(training_loss)(
            member.params, model, coreset.images[rows], coreset.labels[rows], chunk
        )
        updates, opt_state = tx.update(grads, member.opt_state)
        params = optax.apply_updates(member.params, updates)
        return Member(params, opt_state, member.age + 1)

    @jax.jit
    def init(key: Key[Array, ""], coreset: CoresetArrays) -> Member:
        def aged(number: Int[Array, ""]) -> Member:
            network_key = jax.random.fold_in(key, number)
            age = number * config.max_age // config.networks

            def step(i: Int[Array, ""], member: Member) -> Member:
                return train(member, jax.random.fold_in(network_key, i), coreset)

            return lax.fori_loop(0, age, step, fresh(network_key, coreset.images))

        return lax.map(aged, jnp.arange(config.networks))

    def advance(member: Member, key: Key[Array, ""], coreset: CoresetArrays) -> Member:
        return lax.cond(
            member.age + 1 >= config.max_age,
            lambda: fresh(key, coreset.images),
            lambda: train(member, key, coreset),
        )

    return Pool(init, advance)
