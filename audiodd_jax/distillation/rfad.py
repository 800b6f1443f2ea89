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

Devices (``runtime.devices``) share the networks and the rows of batch and coreset: each
draws its own networks, by their numbers, and sums its part of the kernels; the sums are
added up, every device solves and back-propagates through its own networks, and the
gradients are added up. The networks are scanned. ``cost.Plan`` says what of them the
backward pass keeps, and what it computes again.

References:
  Loo, Hasani, Amini, Rus, *Efficient Dataset Distillation Using Random Feature
  Approximation*, NeurIPS 2022, algorithm 1. Zhuang et al., *AdaBelief Optimizer*,
  NeurIPS 2020. Platt, *Probabilistic outputs for support vector machines*, 1999.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import Config
from audiodd_jax.distillation.coreset import CoresetArrays, Method
from audiodd_jax.distillation.cost import Plan
from audiodd_jax.features.prepared import Split
from audiodd_jax.kernels import random_features, ridge
from audiodd_jax.networks import random_conv
from audiodd_jax.networks.chunks import in_chunks
from audiodd_jax.runtime.devices import BATCH, NETWORKS, Grid

_ALONE = Grid()
_PLAN = Plan()


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


class Kernels(NamedTuple):
    """Sums over networks of products of their features.

    Attributes:
      bs: ``[b, s]`` batch by coreset; a device has its rows alone.
      ss: ``[s, s]`` coreset by coreset.
    """

    bs: Float[Array, "b s"]
    ss: Float[Array, "s s"]


def kernel_sums(
    params: Params,
    draw: Callable[[Int[Array, ""]], random_conv.ConvParams],
    x_b: Float[Array, "b f t 1"],
    config: Config,
    grid: Grid = _ALONE,
    plan: Plan = _PLAN,
) -> Kernels:
    """Step 2, this device's part: sums over its networks, for its rows of the batch.

    Args:
      params: what is learnt.
      draw: a network by its number.
      x_b: this device's rows of the batch.
      config: of the run.
      grid: how devices share the work.
      plan: what is computed at once, and what is kept for the backward pass.
    """
    images = decode(params)
    s = images.shape[0]
    wide = jnp.promote_types(images.dtype, config.rfad.kernel_precision)
    own_s = images[grid.share(BATCH, s).numbers] if grid.batch > 1 else images

    def add_network(sums: Kernels, slot: Any) -> tuple[Kernels, None]:
        number, is_own = slot
        network = draw(number)
        phi = lambda x: random_conv.apply(network, x, config.network)
        phi_b = lax.stop_gradient(in_chunks(phi, x_b, plan.chunk))
        part = jax.checkpoint(phi) if plan.coreset_chunk else phi
        phi_s = grid.gather(in_chunks(part, own_s, plan.coreset_chunk), BATCH, s)
        phi_b, phi_s = checkpoint_name(phi_b, "phi_b"), checkpoint_name(phi_s, "phi_s")
        products = Kernels(
            *(random_features.accumulate(p, phi_s) for p in (phi_b, phi_s))
        )
        if is_own is not None:
            products = jax.tree.map(lambda k: jnp.where(is_own, k, 0), products)
        return jax.tree.map(lambda a, b: a + b.astype(wide), sums, products), None

    # The coreset's pass is computed again in the backward pass, which costs nothing to
    # speak of; in chunks that would be a third time, unless its features are kept.
    names = ("phi_b", "phi_s") if plan.coreset_chunk else ("phi_b",)
    kept = names if plan.keeps == "features" else ()
    policy = jax.checkpoint_policies.save_only_these_names(*kept)
    add_network = jax.checkpoint(add_network, policy=policy)
    zeros = Kernels(jnp.zeros((x_b.shape[0], s), wide), jnp.zeros((s, s), wide))
    own = grid.share(NETWORKS, config.rfad.networks)
    return lax.scan(add_network, zeros, own)[0]


def objective(
    sums: Kernels,
    params: Params,
    labels_b: Int[Array, " b"],
    config: Config,
    weights: Float[Array, " b"],
    grid: Grid = _ALONE,
) -> tuple[Float[Array, ""], Float[Array, "b c"]]:
    """Steps 3 and 4: the rows' loss, summed, and their predictions.

    Args:
      sums: over all networks.
      params: what is learnt.
      labels_b: of the rows.
      config: of the run.
      weights: of the rows.
      grid: how devices share the rows.
    """
    n = config.rfad.networks
    d = random_conv.num_features(params.images.shape[1:3], config.network)
    k_bs, k_ss = (random_features.scale_kernel(k, n, d, config.network) for k in sums)
    labels = params.labels.astype(k_ss.dtype)
    dual = ridge.solve(k_ss, labels, config.rfad.regularizer)
    # Summed over all rows before the solve's own gradient, which would amplify what
    # rounding leaves of partial sums.
    dual = grid.summed_back(dual, BATCH)
    y_hat = jnp.dot(k_bs, dual, precision=lax.Precision.HIGHEST)
    if config.rfad.loss == "mse":
        y_b = ridge.centred_one_hot(labels_b, y_hat.shape[1], y_hat.dtype)
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


def gradients(
    params: Params,
    draw: Callable[[Int[Array, ""]], random_conv.ConvParams],
    batch: Split,
    config: Config,
    grid: Grid = _ALONE,
    plan: Plan = _PLAN,
) -> Gradients:
    """Steps 2 to 5 short of the optimiser, on every device of a grid.

    Derivatives go by hand across devices: each loss is of a device's own rows, each
    gradient of its own networks, and both are added up.

    Args:
      params: what is learnt.
      draw: a network by its number.
      batch: the whole of it.
      config: of the run.
      grid: how devices share the work.
      plan: what is computed at once, and what is kept for the backward pass.
    """
    b = batch.labels.shape[0]
    rows = grid.share(BATCH, b)
    if grid.batch > 1:
        batch = Split(batch.images[rows.numbers], batch.labels[rows.numbers])
    own = jnp.ones(rows.numbers.shape) if rows.is_own is None else rows.is_own
    weights = (own / b).astype(batch.images.dtype)

    def sums_of(params: Params) -> Kernels:
        return kernel_sums(params, draw, batch.images, config, grid, plan)

    sums, pull_back = jax.vjp(sums_of, params)
    sums = grid.total(sums, NETWORKS)
    (loss, y_hat), (ct_sums, direct) = jax.value_and_grad(
        objective, argnums=(0, 1), has_aux=True
    )(sums, params, batch.labels, config, weights, grid)
    hits = jnp.sum(weights * (jnp.argmax(y_hat, axis=1) == batch.labels))
    shared = (loss, hits, direct.log_scale)
    loss, hits, log_scale = grid.total(shared, BATCH)
    # What comes back to the coreset's kernel is of all rows already.
    ct_sums = ct_sums._replace(ss=ct_sums.ss / grid.batch)
    (through,) = grid.total(pull_back(ct_sums), NETWORKS, BATCH)
    direct = direct._replace(log_scale=log_scale)
    grads = jax.tree.map(jnp.add, direct, through)
    return Gradients(loss, hits, grads)


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


def make(config: Config, grid: Grid = _ALONE, plan: Plan = _PLAN) -> Method:
    """RFAD as ``init``, ``step`` and ``coreset`` closed over its settings.

    Args:
      config: of the run.
      grid: of the devices over which ``step`` will be mapped.
      plan: what is computed at once, and what is kept for the backward pass.
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
        shape, dtype = batch.images.shape[1:3], batch.images.dtype

        def draw(number: Int[Array, ""]) -> random_conv.ConvParams:
            network_key = jax.random.fold_in(key, number)
            return random_conv.init(network_key, shape, config.network, dtype)

        found = gradients(state.params, draw, batch, config, grid, plan)
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
