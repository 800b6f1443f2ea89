r"""RFAD: random feature approximation distillation, on one page.

Each step, with a batch B of real clips and the coreset S = (x_S, y_S),

1. draws ``n`` fresh random convolutional networks phi_1..phi_n;
2. forms the kernels, a Monte Carlo estimate of the NNGP kernel,
       k_bs = w/(n d) sum_i phi_i(x_B) phi_i(x_S)^T + b^2,   k_ss in the same way
   (``kernels.random_kernels`` describes the readouts);
3. predicts the batch by kernel ridge regression from the coreset,
       y_hat_B = k_bs (k_ss + lambda tr(k_ss)/s I)^-1 y_S;
4. computes the loss
       mse    1/2 mean (y_B - y_hat_B)^2,  y = one_hot - 1/c (tags: multi_hot - 1/c)
       platt  mean cross-entropy of softmax(exp(log_scale) y_hat_B)
              (tags: binary, of sigmoid(exp(log_scale) (y_hat_B + 1/c - 1/2)));
5. updates x_S, y_S and log_scale by the loss's gradient, with AdaBelief. The features
   of B carry no gradient.

``kernels.random_kernels`` computes steps 1 and 2, on any number of devices. KIP uses
an exact kernel instead, and shares the rest. If networks will learn from the coreset,
``aligned`` puts views and a teacher's labels in the place of x_S and y_S.

References:
  Loo, Hasani, Amini, Rus, *Efficient Dataset Distillation Using Random Feature
  Approximation*, NeurIPS 2022, algorithm 1. Platt, *Probabilistic outputs for support
  vector machines*, 1999.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from audiodd_jax.config import Config, RFADConfig
from audiodd_jax.config.packing import Factor
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.data import tags
from audiodd_jax.distillation import aligned, encoded, kernel_methods
from audiodd_jax.distillation.encoded import Views
from audiodd_jax.distillation.kernel_methods import Learner, Params, Rates, State
from audiodd_jax.distillation.method import Context, Method
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.labels import centred_targets, tag_threshold
from audiodd_jax.kernels import embeddings, random_kernels, ridge
from audiodd_jax.kernels.random_kernels import KernelFunction


def loss(
    params: Params,
    key: Key[Array, ""],
    batch: Clips,
    kernels: KernelFunction,
    settings: RFADConfig,
    factor: Factor = 1,
    views: Views | None = None,
) -> tuple[Float[Array, ""], Float[Array, "b c"]]:
    """Steps 1 to 4: the loss of a batch, and its predictions ``[b, c]``.

    ``key`` draws the networks; ``factor`` packs spectrograms in images. Views take the
    place of the spectrograms; None: they stay.
    """
    coreset = kernel_methods.stored(params).unpack(factor)
    if views:
        coreset = views(key, coreset)
    return loss_from(coreset, key, batch, kernels, settings)


def loss_from(
    coreset: CoresetArrays,
    key: Key[Array, ""],
    batch: Clips,
    kernels: KernelFunction,
    settings: RFADConfig,
) -> tuple[Float[Array, ""], Float[Array, "b c"]]:
    """As ``loss``, of spectrograms of full length."""
    k_bs, k_ss = kernels(key, batch.images, coreset.images)
    y_s = coreset.labels.astype(k_ss.dtype)
    y_hat = ridge.predict(k_bs, k_ss, y_s, settings.regularizer)
    if settings.loss == "mse":
        y_b = centred_targets(batch.labels, y_hat.shape[1], y_hat.dtype)
        losses = 0.5 * jnp.mean((y_b - y_hat) ** 2, axis=1)
    elif tags.are_tags(batch.labels):
        logits = jnp.exp(coreset.log_scale) * (y_hat - tag_threshold(y_hat.shape[1]))
        y_b = batch.labels.astype(y_hat.dtype)
        losses = jnp.mean(optax.sigmoid_binary_cross_entropy(logits, y_b), axis=1)
    else:
        logits = jnp.exp(coreset.log_scale) * y_hat
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
    return jnp.mean(losses), y_hat


def learn(
    learner: Learner,
    kernels: KernelFunction,
    settings: RFADConfig,
    factor: Factor,
    views: Views | None = None,
) -> Method:
    """Step 5, for any kernel: the method as ``init``, ``step`` and ``coreset``."""

    def step(
        state: State, batch: Clips, rates: Rates = learner.rates
    ) -> tuple[State, dict[str, Array]]:
        key = jax.random.fold_in(state.key, state.step)

        def batch_loss(params: Params) -> tuple[Array, Array]:
            return loss(params, key, batch, kernels, settings, factor, views)

        return learner.update(state, batch_loss, batch.labels, rates)

    def coreset(state: State) -> CoresetArrays:
        return kernel_methods.stored(state.params)

    return Method(learner.init, step, coreset, rates=learner.rates)


def make(config: Config, context: Context) -> Method:
    """Returns RFAD on the context's devices, computing by its memory plan."""
    given = config.coreset, config.optimizer, config.loop.steps
    learner = kernel_methods.make(*given, context.sizes.per_class)
    factor = config.coreset.factor
    if context.embed:
        stats, count = context.normalization, config.encoder.views
        views = encoded.make_views(count, config.views.augment, stats)
        kernels = embeddings.make(context.embed)
        return learn(learner, kernels, config.rfad, factor, views)
    kernels = random_kernels.make(
        config.network,
        config.rfad.networks,
        precision=config.rfad.kernel_precision,
        plan=context.plan,
        mesh=context.mesh,
    )
    if config.is_aligned:
        views = aligned.make_views(config.views, context)
        of_views = functools.partial(loss_from, kernels=kernels, settings=config.rfad)
        stored = factor, config.coreset.storage
        given = config.rfad, of_views, context.teacher
        return aligned.learn(learner, views, *given, *stored)
    return learn(learner, kernels, config.rfad, factor)
