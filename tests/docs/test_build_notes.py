"""The table of levels, the method and the function in BUILD_NOTES.md are true."""

import ast
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


def test_the_table_of_levels_is_the_one_that_is_enforced():
    tree = ast.parse((NOTES.parent / "tests" / "house" / "test_layers.py").read_text())
    (levels,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "LEVELS"
    )
    rows = re.findall(r"^\| \d+ \| (.*) \|$", NOTES.read_text(), re.MULTILINE)
    printed = [set(re.findall(r"`(\w+)`", row)) for row in rows]
    assert printed[: len(levels)] == list(levels)


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
