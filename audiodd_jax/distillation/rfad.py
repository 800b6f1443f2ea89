r"""RFAD: random feature approximation distillation, on one page.

Each step, with a batch B of real clips and the coreset S = (x_S, y_S),

1. draws ``n`` fresh random conv networks phi_1..phi_n;
2. forms the kernels, a Monte-Carlo estimate of the NNGP kernel,
       k_bs = w/(n d) sum_i phi_i(x_B) phi_i(x_S)^T + b^2,   k_ss likewise
   (``kernels.random_features`` has the readouts);
3. predicts the batch by kernel ridge regression from the coreset,
       y_hat_B = k_bs (k_ss + lambda tr(k_ss)/s I)^-1 y_S;
4. takes the loss
       mse    1/2 mean (y_B - y_hat_B)^2,  y = one_hot - 1/c
       platt  mean cross-entropy of softmax(exp(log_scale) y_hat_B);
5. follows its gradient with respect to x_S, y_S and log_scale by AdaBelief. The
   features of B carry no gradient.

The networks are scanned, and the coreset's pass through each is rematerialised, so
that memory grows with ``n`` by the batch's features alone.

References:
  Loo, Hasani, Amini, Rus, *Efficient Dataset Distillation Using Random Feature
  Approximation*, NeurIPS 2022, algorithm 1. Zhuang et al., *AdaBelief Optimizer*,
  NeurIPS 2020. Platt, *Probabilistic outputs for support vector machines*, 1999.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import Config
from audiodd_jax.distillation.coreset import CoresetArrays, Method
from audiodd_jax.features.prepared import Split
from audiodd_jax.kernels import random_features, ridge
from audiodd_jax.networks import random_conv

# Rematerialising costs 7 % of a step on CPU; this many bytes are not worth it.
_KEPT_BYTES = 256 << 20


class Params(NamedTuple):
    """What RFAD learns.

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
    """The coreset's images: ``mel_map @ image @ time_map^T``."""
    if params.mel_map is None:
        return params.images
    maps = (params.mel_map, params.time_map)
    return jnp.einsum(
        "gf,sftk,ut->sguk", maps[0], params.images, maps[1], precision="highest"
    )


def predictions(
    params: Params,
    networks: random_conv.ConvParams,
    phi_b: Float[Array, "n b d"],
    config: Config,
) -> Float[Array, "b c"]:
    """Steps 2 and 3: kernel ridge regression of the batch on the coreset."""
    images = decode(params)
    n, b, d = phi_b.shape
    s = images.shape[0]

    def add_network(kernels, network_and_features):
        network, phi_b_i = network_and_features
        phi_s_i = random_conv.apply(network, images, config.network)
        shares = (phi_b_i, phi_s_i)
        sums = tuple(
            k + random_features.accumulate(phi, phi_s_i)
            for k, phi in zip(kernels, shares, strict=True)
        )
        return sums, None

    # What the backward pass keeps of the coreset: a byte an activation, 4/3 of the
    # first block's. Beyond a budget it is recomputed, network by network.
    kept = n * s * images.shape[1] * images.shape[2] * config.network.width * 4 / 3
    if kept > _KEPT_BYTES:
        add_network = jax.checkpoint(add_network)
    zeros = (jnp.zeros((b, s), phi_b.dtype), jnp.zeros((s, s), phi_b.dtype))
    sums, _ = lax.scan(add_network, zeros, (networks, phi_b))
    k_bs, k_ss = (random_features.scale_kernel(k, n, d, config.network) for k in sums)
    return ridge.predict(k_bs, k_ss, params.labels, config.rfad.regularizer)


def loss_and_predictions(
    params: Params,
    networks: random_conv.ConvParams,
    phi_b: Float[Array, "n b d"],
    labels_b: Int[Array, " b"],
    config: Config,
) -> tuple[Float[Array, ""], Float[Array, "b c"]]:
    """Step 4: the loss of the batch, and its predictions."""
    y_hat = predictions(params, networks, phi_b, config)
    if config.rfad.loss == "mse":
        y_b = ridge.centred_one_hot(labels_b, y_hat.shape[1], y_hat.dtype)
        return 0.5 * jnp.mean((y_b - y_hat) ** 2), y_hat
    logits = jnp.exp(params.log_scale) * y_hat
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels_b)
    return losses.mean(), y_hat


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


def make(config: Config) -> Method:
    """RFAD as ``init``, ``step`` and ``coreset`` closed over its settings."""
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
        networks = random_features.sample_networks(
            key,
            config.rfad.networks,
            batch.images.shape[1:3],
            config.network,
            batch.images.dtype,
        )
        phi_b = random_features.features(
            networks, batch.images, config.network, config.network.chunk
        )
        grad_fn = jax.value_and_grad(loss_and_predictions, has_aux=True)
        (loss, y_hat), grads = grad_fn(
            state.params, networks, phi_b, batch.labels, config
        )
        if not config.coreset.learn_labels:
            grads = grads._replace(labels=jnp.zeros_like(grads.labels))
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        accuracy = jnp.mean(jnp.argmax(y_hat, axis=1) == batch.labels)
        metrics = {
            "loss": loss,
            "batch_accuracy": accuracy,
            "gradient_norm": optax.global_norm(grads),
        }
        return State(state.step + 1, state.key, params, opt_state), metrics

    def coreset(state: State) -> CoresetArrays:
        params = state.params
        return CoresetArrays(decode(params), params.labels, params.log_scale)

    return Method(init, step, coreset)
