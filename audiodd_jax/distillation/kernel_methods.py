"""What RFAD and KIP share: the coreset as inducing points of a kernel regression.

Their steps differ in how kernels are found, and are one from there on:

3. predict the batch B by kernel ridge regression from the coreset S,
       y_hat_B = k_bs (k_ss + lambda tr(k_ss)/s I)^-1 y_S;
4. take the loss
       mse    1/2 mean (y_B - y_hat_B)^2,  y = one_hot - 1/c
       platt  mean cross-entropy of softmax(exp(log_scale) y_hat_B);
5. follow its gradient with respect to x_S, y_S and log_scale by AdaBelief.

References:
  Nguyen, Chen, Lee, *Dataset Meta-Learning from Kernel Ridge-Regression*, ICLR 2021.
  Zhuang et al., *AdaBelief Optimizer*, NeurIPS 2020. Platt, *Probabilistic outputs for
  support vector machines*, 1999.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import Config
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation.method import Method
from audiodd_jax.features.dataset import Split
from audiodd_jax.features.labels import centred_one_hot
from audiodd_jax.kernels import ridge
from audiodd_jax.runtime.devices import BATCH, Grid

_ALONE = Grid()


class Params(NamedTuple):
    """What is learnt.

    Attributes:
      images: ``[s, f, t, 1]``, before the preconditioner's maps.
      labels: ``[s, c]`` soft labels, centred.
      log_scale: ``[]`` log of the Platt scale.
      mel_map: ``[f, f]`` or None, the preconditioner along mel bins.
      time_map: ``[t, t]`` or None, the preconditioner along frames.
    """

    images: Float[Array, "s f t 1"]
    labels: Float[Array, "s c"]
    log_scale: Float[Array, ""]
    mel_map: Float[Array, "f f"] | None = None
    time_map: Float[Array, "t t"] | None = None


class State(NamedTuple):
    """State between steps: arrays only.

    Attributes:
      step: ``[]`` steps taken.
      key: root key; step i draws from ``fold_in(key, i)``.
      params: what is learnt.
      opt_state: the optimiser's.
    """

    step: Int[Array, ""]
    key: Key[Array, ""]
    params: Params
    opt_state: optax.OptState


def decode(params: Params) -> Float[Array, "s f t 1"]:
    """The images that are stored: ``mel_map @ image @ time_map^T``."""
    if params.mel_map is None:
        return params.images
    maps = (params.mel_map, params.time_map)
    return jnp.einsum(
        "gf,sftk,ut->sguk", maps[0], params.images, maps[1], precision="highest"
    )


def support(params: Params, config: Config) -> CoresetArrays:
    """What kernels are formed of: the spectrograms that the stored ones hold."""
    stored = CoresetArrays(decode(params), params.labels, params.log_scale)
    return stored.unfolded(config.coreset.factor)


class Kernels(NamedTuple):
    """Kernels, or sums over networks of products of their features.

    Attributes:
      bs: ``[b, s]`` batch by coreset; a device has its rows alone.
      ss: ``[s, s]`` coreset by coreset.
    """

    bs: Float[Array, "b s"]
    ss: Float[Array, "s s"]


def regression(
    kernels: Kernels,
    params: Params,
    labels_b: Int[Array, " b"],
    config: Config,
    weights: Float[Array, " b"],
    grid: Grid = _ALONE,
) -> tuple[Float[Array, ""], Float[Array, "b c"]]:
    """Steps 3 and 4: the rows' loss, summed, and their predictions.

    Args:
      kernels: of the rows and the coreset.
      params: what is learnt.
      labels_b: of the rows.
      config: of the run.
      weights: of the rows.
      grid: how devices share the rows.
    """
    k_bs, k_ss = kernels
    labels = support(params, config).labels.astype(k_ss.dtype)
    dual = ridge.solve(k_ss, labels, config.rfad.regularizer)
    # Summed over all rows before the solve's own gradient, which would amplify what
    # rounding leaves of partial sums.
    dual = grid.summed_back(dual, BATCH)
    y_hat = jnp.dot(k_bs, dual, precision=lax.Precision.HIGHEST)
    if config.rfad.loss == "mse":
        y_b = centred_one_hot(labels_b, y_hat.shape[1], y_hat.dtype)
        losses = 0.5 * jnp.mean((y_b - y_hat) ** 2, axis=1)
    else:
        logits = jnp.exp(params.log_scale) * y_hat
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels_b)
    return jnp.sum(weights * losses), y_hat


class Gradients(NamedTuple):
    """What a step needs to know of a batch.

    Attributes:
      loss: ``[]`` mean over the batch.
      accuracy: ``[]`` share of the batch that is predicted right.
      params: the loss's gradient.
    """

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    params: Params


def optimizer(config: Config) -> optax.GradientTransformation:
    """AdaBelief, with its own rate for the Platt scale."""
    peak = {
        "coreset": config.optimizer.learning_rate,
        "platt": config.optimizer.platt_learning_rate,
    }
    schedule = {
        "constant": optax.constant_schedule,
        "cosine": lambda rate: optax.cosine_decay_schedule(rate, config.loop.steps),
    }[config.optimizer.schedule]
    transforms = {
        group: optax.adabelief(schedule(rate), eps=1e-16, eps_root=1e-16)
        for group, rate in peak.items()
    }
    groups = lambda params: Params(
        *("coreset" if value is not None else None for value in params)
    )._replace(log_scale="platt")
    return optax.partition(transforms, groups)


def learner(
    config: Config, find: Callable[[Key[Array, ""], Params, Split], Gradients]
) -> Method:
    """A method that follows gradients of a kernel regression's loss.

    Args:
      config: of the run.
      find: ``(key, params, batch)`` to gradients; the key is the step's own.
    """
    tx = optimizer(config)

    def init(key: Key[Array, ""], start: CoresetArrays) -> State:
        f, t = start.images.shape[1:3]
        params = Params(*start)
        if config.coreset.preconditioner:
            dtype = start.images.dtype
            params = params._replace(
                mel_map=jnp.eye(f, dtype=dtype), time_map=jnp.eye(t, dtype=dtype)
            )
        return State(jnp.zeros((), jnp.int32), key, params, tx.init(params))

    def step(state: State, batch: Split) -> tuple[State, dict[str, Array]]:
        key = jax.random.fold_in(state.key, state.step)
        found = find(key, state.params, batch)
        grads = found.params
        if not config.coreset.learn_labels:
            grads = grads._replace(labels=jnp.zeros_like(grads.labels))
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": found.loss,
            "batch_accuracy": found.accuracy,
            "gradient_norm": optax.global_norm(grads),
        }
        return State(state.step + 1, state.key, params, opt_state), metrics

    def coreset(state: State) -> CoresetArrays:
        params = state.params
        return CoresetArrays(decode(params), params.labels, params.log_scale)

    return Method(init, step, coreset)
