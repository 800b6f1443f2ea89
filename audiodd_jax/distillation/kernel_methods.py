"""What RFAD, KIP and FRePo share: learnt parameters, their optimiser, and its step.

References:
  Nguyen, Chen, Lee, *Dataset Meta-Learning from Kernel Ridge-Regression*, ICLR 2021.
  Zhuang et al., *AdaBelief Optimizer*, NeurIPS 2020.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import Config, OptimizerConfig
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.features import metric


class Params(NamedTuple):
    """The learnt parameters.

    Attributes:
      images: ``[s, f, t, 1]``, before the preconditioner is applied.
      labels: ``[s, c]`` soft labels, centred.
      log_scale: ``[]`` logarithm of the Platt scale.
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
      step: ``[]`` number of steps taken.
      key: root key; step i uses ``fold_in(key, i)``.
      params: learnt parameters.
      opt_state: optimiser state.
    """

    step: Int[Array, ""]
    key: Key[Array, ""]
    params: Params
    opt_state: optax.OptState


def decode(params: Params) -> Float[Array, "s f t 1"]:
    """The stored images: ``mel_map @ image @ time_map^T``."""
    if params.mel_map is None:
        return params.images
    maps = (params.mel_map, params.time_map)
    return jnp.einsum(
        "gf,sftk,ut->sguk", maps[0], params.images, maps[1], precision="highest"
    )


def optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """AdaBelief, with a separate learning rate for the Platt scale."""
    peak = {
        "coreset": config.learning_rate,
        "platt": config.platt_learning_rate,
    }
    schedule = {
        "constant": optax.constant_schedule,
        "cosine": lambda rate: optax.cosine_decay_schedule(rate, steps),
    }[config.schedule]
    transforms = {
        group: optax.adabelief(schedule(rate), eps=1e-16, eps_root=1e-16)
        for group, rate in peak.items()
    }
    groups = lambda params: Params(
        *("coreset" if value is not None else None for value in params)
    )._replace(log_scale="platt")
    return optax.partition(transforms, groups)


def init(config: Config, key: Key[Array, ""], start: CoresetArrays) -> State:
    """The state before the first step, from an initial coreset."""
    f, t = start.images.shape[1:3]
    params = Params(*start)
    if config.coreset.preconditioner:
        eye = lambda size: jnp.eye(size, dtype=start.images.dtype)
        params = params._replace(mel_map=eye(f), time_map=eye(t))
    opt_state = optimizer(config.optimizer, config.loop.steps).init(params)
    return State(jnp.zeros((), jnp.int32), key, params, opt_state)


def update(
    config: Config,
    state: State,
    loss: Callable[[Params], tuple[Float[Array, ""], Float[Array, "b c"]]],
    labels: Int[Array, "b *c"],
) -> tuple[State, dict[str, Array]]:
    """One step along the gradient of a batch's loss, and its metrics.

    Args:
      config: of the run.
      state: before the step.
      loss: ``params -> (loss, predictions)`` of the batch.
      labels: of the batch.
    """
    (value, y_hat), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    if not config.coreset.learn_labels:
        grads = grads._replace(labels=jnp.zeros_like(grads.labels))
    tx = optimizer(config.optimizer, config.loop.steps)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {
        "loss": value,
        "batch_accuracy": metric.of_batch(y_hat, labels),
        "gradient_norm": optax.global_norm(grads),
    }
    return State(state.step + 1, state.key, params, opt_state), metrics


def stored(params: Params) -> CoresetArrays:
    """The coreset of the learnt parameters, as stored."""
    return CoresetArrays(decode(params), params.labels, params.log_scale)
