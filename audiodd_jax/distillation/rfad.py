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

Steps 3 to 5 are those of every kernel, and lie in ``inducing_points``.

Devices (``runtime.devices``) share the networks and the rows of batch and coreset: each
draws its own networks, by their numbers, and sums its part of the kernels; the sums are
added up, every device solves and back-propagates through its own networks, and the
gradients are added up. The networks are scanned. ``cost.Plan`` says what of them the
backward pass keeps, and what it computes again.

References:
  Loo, Hasani, Amini, Rus, *Efficient Dataset Distillation Using Random Feature
  Approximation*, NeurIPS 2022, algorithm 1.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import Config
from audiodd_jax.distillation.kernel_methods import (
    Gradients,
    Kernels,
    Params,
    learner,
    regression,
    support,
)
from audiodd_jax.distillation.memory_plan import Plan
from audiodd_jax.distillation.method import Method
from audiodd_jax.features.dataset import Split
from audiodd_jax.kernels import random_features
from audiodd_jax.networks import random_conv
from audiodd_jax.ops.chunked_map import in_chunks
from audiodd_jax.runtime.devices import BATCH, NETWORKS, Grid

_ALONE = Grid()
_PLAN = Plan()


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
    images = support(params, config).images
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
    """Steps 3 and 4 from the sums over all networks; the rest as in ``regression``."""
    n = config.rfad.networks
    d = random_conv.num_features(params.images.shape[1:3], config.network)
    kernels = (random_features.scale_kernel(k, n, d, config.network) for k in sums)
    return regression(Kernels(*kernels), params, labels_b, config, weights, grid)


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


def make(config: Config, grid: Grid = _ALONE, plan: Plan = _PLAN) -> Method:
    """RFAD as ``init``, ``step`` and ``coreset`` closed over its settings.

    Args:
      config: of the run.
      grid: of the devices over which ``step`` will be mapped.
      plan: what is computed at once, and what is kept for the backward pass.
    """

    def find(key: Key[Array, ""], params: Params, batch: Split) -> Gradients:
        shape, dtype = batch.images.shape[1:3], batch.images.dtype

        def draw(number: Int[Array, ""]) -> random_conv.ConvParams:
            network_key = jax.random.fold_in(key, number)
            return random_conv.init(network_key, shape, config.network, dtype)

        return gradients(params, draw, batch, config, grid, plan)

    return learner(config, find)
