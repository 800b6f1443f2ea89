"""The method and the acquisition function in BUILD_NOTES.md work as printed."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from audiodd_jax.active_learning.acquisition import mean_log_probs
from audiodd_jax.config import Config
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation.method import Context, Method
from audiodd_jax.features.clips import Clips

NOTES = Path(__file__).parents[2] / "BUILD_NOTES.md"


class State(NamedTuple):
    step: Any
    key: Any
    arrays: Any


@pytest.fixture(scope="module")
def printed():
    """The functions of the printed blocks, by name."""
    names = {
        "Array": Array,
        "Config": Config,
        "Context": Context,
        "Float": Float,
        "Method": Method,
        "State": State,
        "jnp": jnp,
        "mean_log_probs": mean_log_probs,
    }
    for block in re.findall(r"```python\n(.*?)```", NOTES.read_text(), re.DOTALL):
        exec(compile(block, NOTES.name, "exec"), names)
    return names


def test_the_method_moves_the_coreset_to_the_mean_of_the_batch(printed):
    method = printed["make"](Config(), context=None)
    start = CoresetArrays(jnp.zeros((2, 4, 4, 1)), jnp.zeros((2, 2)), jnp.zeros(()))
    state = method.init(jax.random.key(0), start)
    batch = Clips(jnp.ones((3, 4, 4, 1)), jnp.zeros(3, jnp.int32))
    state, metrics = jax.jit(method.step)(state, batch)
    assert state.step == 1
    assert metrics["loss"] == 1.0
    rate = Config().optimizer.learning_rate
    np.testing.assert_allclose(method.coreset(state).images, rate, rtol=1e-6)


def test_the_acquisition_function_prefers_uncertain_clips(printed):
    probabilities = jnp.array([[[0.9, 0.1], [0.5, 0.5]]])
    scores = printed["least_confident"](jnp.log(probabilities))
    np.testing.assert_allclose(scores, [0.1, 0.5], atol=1e-6)
