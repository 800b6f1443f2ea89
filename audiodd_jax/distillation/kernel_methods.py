"""The learnt parameters of RFAD, KIP and FRePo, their optimiser, and its step.

References:
  Nguyen, Chen, Lee, *Dataset Meta-Learning from Kernel Ridge-Regression*, ICLR 2021.
  Zhuang et al., *AdaBelief Optimizer*, NeurIPS 2020.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import CoresetConfig, OptimizerConfig
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.coreset.sizes import class_order, prefixes, ranks_in_class
from audiodd_jax.features import metric
from audiodd_jax.runtime import schedules

# Folded into a step's key, to draw the prefix that it learns from.
_PREFIX = 2


class Params(NamedTuple):
    """The learnt parameters.

    Attributes:
      images: before the preconditioner is applied.
      labels: soft labels, centred.
      log_scale: logarithm of the Platt scale.
      mel_map: the preconditioner along mel bins; None: images are stored as learnt.
      time_map: the preconditioner along frames.
    """

    images: Float[Array, "s f t 1"]
    labels: Float[Array, "s c"]
    log_scale: Float[Array, ""]
    mel_map: Float[Array, "f f"] | None = None
    time_map: Float[Array, "t t"] | None = None


class State(NamedTuple):
    """State between steps: arrays only. Step i uses ``fold_in(key, i)``."""

    step: Int[Array, ""]
    key: Key[Array, ""]
    params: Params
    opt_state: optax.OptState


class Rates(NamedTuple):
    """The numbers of a schedule of learning rates.

    They are arguments of compiled programs: runs with other rates, or of another
    length, share these.

    Attributes:
      coreset: learning rate of images and labels.
      platt: learning rate of the Platt scale.
      steps: number of steps over which a cosine falls to zero.
      angle: the cosine's angle of a step.
    """

    coreset: float | Array
    platt: float | Array
    steps: int | Array
    angle: float | Array

    @classmethod
    def of(cls, config: OptimizerConfig, steps: int) -> "Rates":
        """Returns the numbers of a run's settings."""
        rates = config.learning_rate, config.platt_learning_rate
        return cls(*rates, steps, schedules.angle_of_step(steps))


# The loss of a batch, and its predictions.
Loss = Callable[[Params], tuple[Float[Array, ""], Float[Array, "b c"]]]


class Learner(NamedTuple):
    """Functions that learn a coreset along the gradient of any loss.

    Attributes:
      init: ``(key, start) -> state`` before the first step.
      update: ``(state, loss, labels of the batch, rates) -> (state, metrics)``.
      rates: the rates of the run's settings.
    """

    init: Callable[[Key[Array, ""], CoresetArrays], State]
    update: Callable[
        [State, Loss, Int[Array, "b *c"], Rates], tuple[State, dict[str, Array]]
    ]
    rates: Rates


def optimizer(schedule: str, rates: Rates) -> optax.GradientTransformation:
    """Returns AdaBelief, with a separate learning rate for the Platt scale.

    ``schedule`` is ``constant`` or ``cosine``.
    """

    def adabelief(rate: float | Array) -> optax.GradientTransformation:
        of_step = optax.constant_schedule(rate)
        if schedule == "cosine":
            of_step = lambda step: schedules.cosine(
                rate, step, rates.steps, rates.angle
            )
        return optax.adabelief(of_step, eps=1e-16, eps_root=1e-16)

    def groups(params: Params) -> Params:
        names = ("coreset" if value is not None else None for value in params)
        return Params(*names)._replace(log_scale="platt")

    transforms = {
        "coreset": adabelief(rates.coreset),
        "platt": adabelief(rates.platt),
    }
    return optax.partition(transforms, groups)


def make(
    coreset: CoresetConfig,
    config: OptimizerConfig,
    steps: int,
    per_class: tuple[int, ...] = (),
) -> Learner:
    """Returns the functions that learn a coreset in a number of steps.

    If it is nested, each step learns from the first spectrograms of the classes, one of
    the numbers that ``coreset.sizes.prefixes`` lists, drawn anew. ``per_class`` counts
    all of them.
    """
    own_rates = Rates.of(config, steps)
    classes = class_order(np.array(per_class, int))
    ranks = ranks_in_class(classes)
    ends = prefixes(max(per_class)) if coreset.nested else ()

    def of_a_prefix(loss: Loss, key: Key[Array, ""]) -> Loss:
        def of_rows(rows: Int[np.ndarray, " r"], params: Params) -> tuple[Array, Array]:
            images, labels = params.images[rows], params.labels[rows]
            return loss(params._replace(images=images, labels=labels))

        rows = [np.flatnonzero(ranks < end) for end in ends]
        parts = [functools.partial(of_rows, one) for one in rows]
        which = jax.random.randint(jax.random.fold_in(key, _PREFIX), (), 0, len(ends))
        return lambda params: jax.lax.switch(which, parts, params)

    def init(key: Key[Array, ""], start: CoresetArrays) -> State:
        params = Params(*start)
        if coreset.preconditioner:
            f, t = start.images.shape[1:3]
            dtype = start.images.dtype
            params = params._replace(
                mel_map=jnp.eye(f, dtype=dtype), time_map=jnp.eye(t, dtype=dtype)
            )
        tx = optimizer(config.schedule, own_rates)
        return State(jnp.zeros((), jnp.int32), key, params, tx.init(params))

    def update(
        state: State, loss: Loss, labels: Int[Array, "b *c"], rates: Rates
    ) -> tuple[State, dict[str, Array]]:
        if coreset.nested:
            loss = of_a_prefix(loss, jax.random.fold_in(state.key, state.step))
        (value, y_hat), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        if not coreset.learn_labels:
            grads = grads._replace(labels=jnp.zeros_like(grads.labels))
        tx = optimizer(config.schedule, rates)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": value,
            "batch_accuracy": metric.of_batch(y_hat, labels),
            "gradient_norm": optax.global_norm(grads),
        }
        return State(state.step + 1, state.key, params, opt_state), metrics

    return Learner(init, update, own_rates)


def stored(params: Params) -> CoresetArrays:
    """Returns the coreset as stored: images are ``mel_map @ image @ time_map^T``."""
    images = params.images
    if params.mel_map is not None:
        images = jnp.einsum(
            "gf,sftk,ut->sguk",
            params.mel_map,
            images,
            params.time_map,
            precision="highest",
        )
    return CoresetArrays(images, params.labels, params.log_scale)
