"""The learnt parameters of RFAD and KIP, and their optimiser.

References:
  Nguyen, Chen, Lee, *Dataset Meta-Learning from Kernel Ridge-Regression*, ICLR 2021.
  Zhuang et al., *AdaBelief Optimizer*, NeurIPS 2020.
"""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import OptimizerConfig


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
