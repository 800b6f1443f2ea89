r"""FRePo: neural feature regression with a pool of networks, on one page.

Each step, with a batch B of real clips and the coreset S = (x_S, y_S),

1. draws one of the pool's networks, which are trained on the coreset;
2. forms its conjugate kernels, from the input phi of its last layer,
       k_bs = phi(x_B) phi(x_S)^T,   k_ss = phi(x_S) phi(x_S)^T;
3. predicts the batch by kernel ridge regression from the coreset,
       y_hat_B = k_bs (k_ss + lambda tr(k_ss)/s I)^-1 y_S;
4. computes the loss: the error of the predictions minus the margin of the labels,
       1/2 mean_b sum_c (y_bc - y_hat_bc)^2 - w mean_s min(y_s1 - y_s2, 1/c),
   with y = one_hot - 1/c for real clips, and y_s1 >= y_s2 the two largest labels of a
   spectrogram: the margin keeps the classes apart while the labels are learnt;
5. updates x_S and y_S by the loss's gradient, with AdaBelief. The features of B carry
   no gradient, and the network is a constant;
6. trains that network for a step on the new coreset, or replaces it at the end of its
   life.

A step costs as much as a step of RFAD with a single network, plus a training step on
the coreset. The age of a network is the number of its training steps, each an Adam step
on

    1/2 mean_i sum_c (f(x_i)_c - y_ic)^2

over a batch of the coreset. At the start network i of p has age ``i * max_age // p``,
so that the networks expire one by one: a network that would reach ``max_age`` is
replaced by a fresh one. (In the authors' program the first networks have these ages,
but are untrained.) The first pool is trained before the first step, and again when a
run resumes; the seconds that a run reports do not include this.

Networks of all ages represent the whole training that a coreset is made for. Kernel
regression with random networks does not predict how well they learn from it, so the
last coreset is kept (``config.presets``).

Devices share the rows of batch and coreset. Training the network is not shared.

References:
  Zhou, Nezhadarya, Ba, *Dataset Distillation using Neural Feature Regression*, NeurIPS
  2022, algorithm 1. Step 4 has the margin of the authors' program; they update by LAMB.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import Config, FRePoConfig
from audiodd_jax.config.packing import Factor
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.data import tags
from audiodd_jax.distillation import kernel_methods, matching_methods
from audiodd_jax.distillation.kernel_methods import Params, Rates
from audiodd_jax.distillation.method import Context, Method
from audiodd_jax.features import batches
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.labels import centred_targets
from audiodd_jax.kernels import random_kernels, ridge
from audiodd_jax.kernels.random_kernels import Kernels, Plan
from audiodd_jax.networks import models
from audiodd_jax.networks.classifier import ConvNet
from audiodd_jax.networks.models import Variables
from audiodd_jax.runtime import devices
from audiodd_jax.runtime.memory import in_chunks

_PLAN = Plan()
# Folded into a step's key: for the choice of a network, and for its training.
_CHOICE, _TRAIN = range(2)

# ``(network, x_b, x_s) -> (k_bs, k_ss)``.
ConjugateKernels = Callable[
    [Any, Float[Array, "b f t 1"], Float[Array, "s f t 1"]], Kernels
]


class Member(NamedTuple):
    """A network, its optimiser's state and age, or all ``p``, stacked along an axis."""

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


class State(NamedTuple):
    """State between steps: the learnt parameters, and the networks of the pool."""

    learnt: kernel_methods.State
    pool: Member

    @property
    def step(self) -> Int[Array, ""]:
        """Number of steps taken."""
        return self.learnt.step


def make_model(
    config: FRePoConfig, num_classes: int, dtype: DTypeLike = jnp.float32
) -> nn.Module:
    """Returns the network of the pool."""
    return ConvNet(
        num_classes,
        depth=config.depth,
        width=config.width,
        norm=config.norm,
        readout=config.readout,
        head="random",
        dtype=dtype,
    )


def make_kernels(
    model: nn.Module,
    precision: DTypeLike = jnp.float32,
    plan: Plan = _PLAN,
    mesh: Mesh | None = None,
) -> ConjugateKernels:
    """Step 2 as ``kernels(network, x_b, x_s) -> (k_bs, k_ss)``.

    Devices share the rows of batch and coreset; ``precision`` is the kernels' lowest.
    """

    def phi(params: Any, images: Array) -> Array:
        return models.embed(model, Variables(params, {}), images)[0]

    def coreset_features(images: Array, params: Any) -> Array:
        part = functools.partial(phi, params)
        part = jax.checkpoint(part) if plan.coreset_chunk else part
        return in_chunks(part, images, plan.coreset_chunk)

    def batch_rows(images: Array, shared: tuple[Any, Array]) -> Array:
        params, phi_s = shared

        def part(rows: Array) -> Array:
            phi_b = lax.stop_gradient(phi(params, rows))
            return random_kernels.accumulate(phi_b, phi_s)

        return in_chunks(part, images, plan.chunk)

    coreset_features = devices.shard_rows(coreset_features, mesh)
    batch_rows = devices.shard_rows(batch_rows, mesh)

    def kernels(params: Any, x_b: Array, x_s: Array) -> Kernels:
        phi_s = coreset_features(x_s, params)
        k_bs = batch_rows(x_b, (params, phi_s))
        k_ss = random_kernels.accumulate(phi_s, phi_s)
        wide = jnp.promote_types(k_ss.dtype, precision)
        return Kernels(k_bs.astype(wide), k_ss.astype(wide))

    return kernels


def margin(labels: Float[Array, "s c"]) -> Float[Array, " s"]:
    """Returns the gap between each spectrogram's two largest labels, up to 1/c."""
    largest, second = jnp.moveaxis(lax.top_k(labels, 2)[0], 1, 0)
    return jnp.minimum(largest - second, 1 / labels.shape[1])


def loss(
    params: Params,
    network: Any,
    batch: Clips,
    kernels: ConjugateKernels,
    settings: FRePoConfig,
    factor: Factor = 1,
) -> tuple[Float[Array, ""], Float[Array, "b c"]]:
    """Steps 2 to 4: the loss of a batch, and its predictions ``[b, c]``.

    ``network`` is the drawn network; ``factor`` packs spectrograms in images.
    """
    coreset = kernel_methods.stored(params).unpack(factor)
    k_bs, k_ss = kernels(network, batch.images, coreset.images)
    y_s = coreset.labels.astype(k_ss.dtype)
    y_hat = ridge.predict(k_bs, k_ss, y_s, settings.regularizer)
    y_b = centred_targets(batch.labels, y_hat.shape[1], y_hat.dtype)
    error = 0.5 * jnp.mean(jnp.sum((y_b - y_hat) ** 2, axis=1))
    if tags.are_tags(batch.labels):  # a spectrogram may have several large labels
        return error, y_hat
    return error - settings.margin_weight * jnp.mean(margin(params.labels)), y_hat


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


def make_pool(model: nn.Module, config: FRePoConfig, chunk: int = 0) -> Pool:
    """Step 6: training processes at most ``chunk`` spectrograms at once; 0: all."""
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


def make(config: Config, context: Context) -> Method:
    """Returns FRePo on the context's devices, computing by its memory plan."""
    settings, factor = config.frepo, config.coreset.factor
    model = make_model(settings, context.sizes.c, context.dtype)
    pool = make_pool(model, settings, context.plan.coreset_chunk)
    precision = jnp.dtype(config.rfad.kernel_precision)
    kernels = make_kernels(model, precision, context.plan, context.mesh)
    learner = kernel_methods.make(config.coreset, config.optimizer, config.loop.steps)

    def init(key: Key[Array, ""], start: CoresetArrays) -> State:
        learner_key, pool_key = jax.random.split(key)
        members = pool.init(pool_key, start.unpack(factor))
        return State(learner.init(learner_key, start), members)

    def step(
        state: State, batch: Clips, rates: Rates = learner.rates
    ) -> tuple[State, dict[str, Array]]:
        key = jax.random.fold_in(state.learnt.key, state.step)
        choice_key, train_key = (
            jax.random.fold_in(key, use) for use in (_CHOICE, _TRAIN)
        )
        index = jax.random.randint(choice_key, (), 0, settings.networks)
        member = jax.tree.map(lambda x: x[index], state.pool)

        def batch_loss(params: Params) -> tuple[Array, Array]:
            return loss(params, member.params, batch, kernels, settings, factor)

        learnt, metrics = learner.update(state.learnt, batch_loss, batch.labels, rates)
        stored = kernel_methods.stored(learnt.params)
        member = pool.advance(member, train_key, stored.unpack(factor))
        put = lambda x, new: x.at[index].set(new)
        return State(learnt, jax.tree.map(put, state.pool, member)), metrics

    def coreset(state: State) -> CoresetArrays:
        return kernel_methods.stored(state.learnt.params)

    return Method(init, step, coreset, rates=learner.rates)
