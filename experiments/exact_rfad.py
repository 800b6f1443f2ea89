"""One step of KIP: RFAD's loss with the exact kernel, by neural-tangents."""

import importlib.util
import sys
import types

import jax
import jax.numpy as jnp
import optax

from audiodd_jax.kernels import ridge


def _stax():
    """neural-tangents' ``stax``, past its ``__init__``, which today's JAX breaks."""
    if "neural_tangents" not in sys.modules:
        found = importlib.util.find_spec("neural_tangents")
        package = types.ModuleType("neural_tangents")
        package.__path__ = list(found.submodule_search_locations)
        sys.modules["neural_tangents"] = package
    from neural_tangents import stax

    return stax


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
    stax = _stax()
    of = {"W_std": 2**0.5, "b_std": bias_std}
    block = lambda: (
        stax.Conv(1, (3, 3), padding="SAME", **of),
        stax.Relu(),
        stax.AvgPool((2, 2), (2, 2)),
    )
    layers = [layer for _ in range(3) for layer in block()]
    _, _, kernel = stax.serial(*layers, stax.Flatten(), stax.Dense(1, **of))
    targets = ridge.centred_one_hot(jnp.asarray(labels), y_s.shape[1])

    def loss(params):
        images, y = params
        k_bs, k_ss = kernel(x, images, "nngp"), kernel(images, None, "nngp")
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
