"""What tests of several rooms share: kills between two steps, exact gradients."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from audiodd_jax.runtime.run_directory import RunDirectory


class Killed(BaseException):
    """Stands for a kill that no code can handle."""


@contextlib.contextmanager
def killed_at(step):
    """Kills the run in the block after it has logged ``step``."""
    log = RunDirectory.log

    def log_and_die(self, row):
        log(self, row)
        if row["step"] == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDirectory, "log", log_and_die)
        with pytest.raises(Killed):
            yield


def assert_gradient(value, params):
    """A float64 function's gradient is that of central differences.

    Along three random directions of all parameters.
    """
    found = jax.jit(jax.value_and_grad(value))
    f, grads = lambda p: found(p)[0], found(params)[1]
    rng = np.random.default_rng(1)
    for _ in range(3):
        direction = jax.tree.map(
            lambda x: jnp.asarray(rng.normal(size=x.shape)), params
        )
        shift = lambda h, d=direction: jax.tree.map(lambda x, v: x + h * v, params, d)
        numeric = (f(shift(1e-6)) - f(shift(-1e-6))) / 2e-6
        exact = optax.tree.vdot(grads, direction)
        assert float(numeric) == pytest.approx(float(exact), rel=1e-5)
