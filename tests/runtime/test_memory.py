"""The memory of a job, and functions in chunks that need less of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiodd_jax.runtime import memory


@pytest.mark.parametrize("version", [1, 2])
def test_the_lowest_limit_of_nested_control_groups_applies(tmp_path, version):
    root = tmp_path / "cgroup"
    folder = root / "memory" / "job" / "step" if version == 1 else root / "job" / "step"
    folder.mkdir(parents=True)
    name = "memory.limit_in_bytes" if version == 1 else "memory.max"
    (folder.parent / name).write_text("5000\n")
    (folder / name).write_text("max\n" if version == 2 else "7000\n")
    own = tmp_path / "own"
    own.write_text(f"{'4:memory' if version == 1 else '0:'}:/job/step\n")
    assert memory.host_memory(root, own) == 5000


@given(rows=st.integers(1, 5000), most=st.integers(1, 5000))
def test_chunks_are_nearly_equal(rows, most):
    size = memory.balanced(rows, most)
    count = -(-rows // size)
    assert 1 <= size <= most or size == rows
    assert count == -(-rows // most)
    assert count * size - rows < count


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 12), chunk=st.integers(0, 14))
def test_values_do_not_depend_on_the_chunk(rows, chunk):
    x = jnp.arange(rows * 2.0).reshape(rows, 2)
    f = lambda x: (x**2, x.sum(1))
    for ours, whole in zip(memory.in_chunks(f, x, chunk), f(x), strict=True):
        np.testing.assert_array_equal(ours, whole)


def test_gradients_pass_through_chunks():
    x = jnp.arange(10.0).reshape(5, 2)
    f = lambda x: jnp.sum(jnp.sin(memory.in_chunks(lambda r: r**2, x, 2)))
    np.testing.assert_allclose(jax.grad(f)(x), 2 * x * jnp.cos(x**2), rtol=1e-6)
