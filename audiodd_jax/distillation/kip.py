r"""KIP: kernel inducing points, RFAD's loss with the exact kernel, on one page.

Each step, with a batch B of real clips and the coreset S = (x_S, y_S),

1. computes the kernels of the infinitely wide network (RFAD estimates its NNGP kernel
   from random networks),
       k_bs = k(x_B, x_S),   k_ss = k(x_S, x_S),   k the NNGP kernel or the NTK
   (``kernels.infinite_width``);
2. continues as RFAD from step 3 on (``distillation.rfad``): ridge regression, the same
   loss, AdaBelief.

Only the batch is random. A pair of clips takes ``(f t)^2`` numbers, so pairs are
computed a few at a time, and recomputed in the backward pass.

Only one argument of the Gram matrix is differentiated. With G the loss's gradient with
respect to k_ss, and k symmetric,

    d loss = sum_ij G_ij (d_1 k(x_i, x_j) dx_i + d_2 k(x_i, x_j) dx_j)
           = sum_ij (G + G^T)_ij d_1 k(x_i, x_j) dx_i.

References:
  Nguyen, Chen, Lee, *Dataset Meta-Learning from Kernel Ridge-Regression*, ICLR 2021.
  Nguyen, Novak, Xiao, Lee, *Dataset Distillation with Infinitely Wide Convolutional
  Networks*, NeurIPS 2021.
"""

import functools

import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Key

from audiodd_jax.config import Config
from audiodd_jax.distillation import kernel_methods, rfad
from audiodd_jax.distillation.method import Context, Method
from audiodd_jax.errors import UserError
from audiodd_jax.kernels import infinite_width
from audiodd_jax.kernels.infinite_width import Kernel
from audiodd_jax.kernels.random_kernels import KernelFunction, Kernels
from audiodd_jax.runtime import devices


def make_kernels(
    kernel: Kernel,
    pairs: int,
    precision: DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
) -> KernelFunction:
    """Step 1 as ``kernels(key, x_b, x_s) -> (k_bs, k_ss)``; the key is not used.

    ``pairs`` are computed at once; devices share the rows of batch and coreset.
    """
    some_rows = functools.partial(infinite_width.rows, kernel, pairs=pairs)
    rows = devices.shard_rows(some_rows, mesh)

    def kernels(key: Key[Array, ""], x_b: Array, x_s: Array) -> Kernels:
        one_sided = rows(x_s, lax.stop_gradient(x_s))
        # Adds zero to the value, and by symmetry the other argument's gradient.
        k_ss = one_sided + (one_sided.T - lax.stop_gradient(one_sided.T))
        wide = jnp.promote_types(k_ss.dtype, precision)
        return Kernels(rows(x_b, x_s).astype(wide), k_ss.astype(wide))

    return kernels


def make(config: Config, context: Context) -> Method:
    """Returns KIP on the context's devices.

    Raises:
      UserError: neural-tangents is not installed, a single pair does not fit the
        memory, or features of reduced precision are requested.
    """
    if config.network.precision != "float32":
        raise UserError(
            "kip computes the exact kernel in float32: network.precision="
            f"{config.network.precision} is for random networks"
        )
    kernel = infinite_width.make_kernel(config.network, config.kip.kernel)
    at_most = infinite_width.pairs_at_once(context.sizes.shape, is_differentiated=True)
    pairs = config.kip.pairs or at_most
    precision = jnp.dtype(config.rfad.kernel_precision)
    kernels = make_kernels(kernel, pairs, precision, context.mesh)
    learner = kernel_methods.make(config.coreset, config.optimizer, config.loop.steps)
    return rfad.learn(learner, kernels, config.rfad, config.coreset.factor)
