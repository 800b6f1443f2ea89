r"""KIP: kernel inducing points, RFAD's loss with the exact kernel, on one page.

Each step, with a batch B of real clips and the coreset S = (x_S, y_S),

1. computes the kernels of the infinitely wide network, whose NNGP kernel RFAD
   estimates from random ones,
       k_bs = k(x_B, x_S),   k_ss = k(x_S, x_S),   k the NNGP kernel or the NTK
   (``kernels.infinite_width``);
2. goes on as RFAD does: ``inducing_points`` has the regression, its loss, and the
   optimiser.

Nothing is drawn but the batch. A pair of clips takes ``(f t)^2`` numbers, so that pairs
are computed some at a time, and again in the backward pass.

Of the Gram matrix one side alone is differentiated. With G the loss's gradient in k_ss,
and k symmetric,

    d loss = sum_ij G_ij (d_1 k(x_i, x_j) dx_i + d_2 k(x_i, x_j) dx_j)
           = sum_ij (G + G^T)_ij d_1 k(x_i, x_j) dx_i.

Devices (``runtime.devices``) share the rows of batch and coreset: each computes its own
rows of both kernels; those of the coreset are gathered, every device solves, pulls back
what is of its own rows, and the gradients are added up.

References:
  Nguyen, Chen, Lee, *Dataset Meta-Learning from Kernel Ridge-Regression*, ICLR 2021.
  Nguyen, Novak, Xiao, Lee, *Dataset Distillation with Infinitely Wide Convolutional
  Networks*, NeurIPS 2021.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from audiodd_jax.config import Config
from audiodd_jax.distillation.kernel_methods import (
    Gradients,
    Kernels,
    Params,
    learner,
    regression,
    support,
)
from audiodd_jax.distillation.method import Method
from audiodd_jax.features.dataset import Split
from audiodd_jax.kernels import infinite_width
from audiodd_jax.kernels.infinite_width import Kernel
from audiodd_jax.runtime.devices import BATCH, Grid
from audiodd_jax.runtime.errors import UserError

_ALONE = Grid()


def gradients(
    params: Params,
    kernel: Kernel,
    batch: Split,
    config: Config,
    pairs: int,
    grid: Grid = _ALONE,
) -> Gradients:
    """The loss's gradients, on every device of a grid.

    Args:
      params: what is learnt.
      kernel: of all pairs of two sets of inputs.
      batch: the whole of it.
      config: of the run.
      pairs: whose kernel is computed at once.
      grid: how devices share the rows.
    """
    b = batch.labels.shape[0]
    own_b = grid.share(BATCH, b)
    x_b, labels_b = (part[own_b.numbers] for part in batch)
    is_own = jnp.ones(labels_b.shape) if own_b.is_own is None else own_b.is_own
    weights = (is_own / b).astype(x_b.dtype)

    stored = lambda params: support(params, config).images
    x_s, pull_back_images = jax.vjp(stored, params)
    own_s = grid.share(BATCH, x_s.shape[0])
    rows = functools.partial(infinite_width.rows, kernel, pairs=pairs)
    k_bs, pull_back_bs = jax.vjp(lambda x: rows(x_b, x), x_s)
    k_ss, pull_back_ss = jax.vjp(lambda x: rows(x, x_s), x_s[own_s.numbers])

    kernels = Kernels(k_bs, grid.gather(k_ss, BATCH, x_s.shape[0]))
    wide = lambda k: k.astype(jnp.promote_types(k.dtype, config.rfad.kernel_precision))
    loss_of = lambda kernels, params: regression(
        jax.tree.map(wide, kernels), params, labels_b, config, weights, grid
    )
    (loss, y_hat), (ct, direct) = jax.value_and_grad(
        loss_of, argnums=(0, 1), has_aux=True
    )(kernels, params)
    hits = jnp.sum(weights * (jnp.argmax(y_hat, axis=1) == labels_b))
    loss, hits, log_scale = grid.total((loss, hits, direct.log_scale), BATCH)
    direct = direct._replace(log_scale=log_scale)

    # What comes back to the coreset's kernel is of all rows already.
    ct_ss = (ct.ss + ct.ss.T)[own_s.numbers]
    if own_s.is_own is not None:
        ct_ss = jnp.where(own_s.is_own[:, None], ct_ss, 0)
    (ct_images,) = pull_back_bs(ct.bs)
    ct_images = ct_images.at[own_s.numbers].add(*pull_back_ss(ct_ss))
    (through,) = pull_back_images(grid.total(ct_images, BATCH))
    return Gradients(loss, hits, jax.tree.map(jnp.add, direct, through))


def make(config: Config, shape: tuple[int, int], grid: Grid = _ALONE) -> Method:
    """KIP as ``init``, ``step`` and ``coreset`` closed over its settings.

    Args:
      config: of the run.
      shape: ``(f, t)`` of the spectrograms.
      grid: of the devices over which ``step`` will be mapped.

    Raises:
      UserError: neural-tangents is not installed, a pair does not fit the memory, or
        features of another precision are asked for.
    """
    if config.network.precision != "float32":
        raise UserError(
            "kip has the exact kernel, in float32: network.precision="
            f"{config.network.precision} is for random networks"
        )
    kernel = infinite_width.make_kernel(config.network, config.kip.kernel)
    at_most = infinite_width.pairs_at_once(shape, is_differentiated=True)
    pairs = config.kip.pairs or at_most

    def find(key: Key[Array, ""], params: Params, batch: Split) -> Gradients:
        return gradients(params, kernel, batch, config, pairs, grid)

    return learner(config, find)
