"""One step of KIP: RFAD's loss with the exact kernel, by neural-tangents."""

import jax
import jax.numpy as jnp
import optax

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.kernels import infinite_width, ridge


def make_step(x, labels, x_s, y_s, *, rate, regularizer, bias_std):
    """A function that takes a step and returns its loss; its compilation is done.

    Args:
      x: ``[b, f, t, 1]`` real clips.
      labels: ``[b]``.
      x_s: ``[s, f, t, 1]`` the coreset.
      y_s: ``[s, c]`` its labels.
      rate: learning rate.
      regularizer: of the kernel regression.
      bias_std: of the network's biases.
    """
    kernel = infinite_width.make_kernel(RandomNetworkConfig(bias_std=bias_std), "nngp")
    targets = ridge.centred_one_hot(jnp.asarray(labels), y_s.shape[1])

    def loss(params):
        images, y = params
        k_bs, k_ss = kernel(x, images), kernel(images, images)
        predictions = ridge.predict(k_bs, k_ss, y, regularizer)
        return 0.5 * jnp.mean((targets - predictions) ** 2)

    tx = optax.adabelief(rate, eps=1e-16, eps_root=1e-16)
    params = (jnp.asarray(x_s), jnp.asarray(y_s))
    state = [params, tx.init(params)]

    @jax.jit
    def update(params, opt_state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, value

    update = update.lower(*state).compile()

    def step():
        *state[:], value = update(*state)
        return float(value)

    return step
