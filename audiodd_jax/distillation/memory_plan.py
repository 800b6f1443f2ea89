"""The memory plan of a step: the largest chunks that are predicted to fit a device."""

import jax

from audiodd_jax.distillation import cost
from audiodd_jax.distillation.cost import Problem
from audiodd_jax.kernels.random_kernels import Plan
from audiodd_jax.runtime.devices import Grid
from audiodd_jax.runtime.memory import memory_of, memory_share

_LEAST_CHUNK = 8


def choose(problem: Problem, grid: Grid, platform: str, memory: int) -> Plan:
    """Returns the plan with the largest chunks that fit devices of ``memory`` bytes.

    The smallest plan if none fits. ``network.chunk`` sets the chunks.
    """
    budget = memory_share(platform) * memory
    sizes, chunk = problem.sizes, problem.network.chunk
    plans = [
        Plan(*chunks, keeps)
        for keeps in ("features", "nothing")
        for chunks in ([(chunk, chunk)] if chunk else _chunks(sizes.b, sizes.s))
    ]
    for plan in plans:
        if cost.predict(problem, grid, plan, platform).peak_bytes() <= budget:
            return plan
    return plans[-1]


def for_device(problem: Problem, grid: Grid, device: jax.Device | None = None) -> Plan:
    """Returns the plan for a device; None: the first local one."""
    device = device or jax.local_devices()[0]
    return choose(problem, grid, device.platform, memory_of(device))


def _chunks(b: int, s: int) -> list[tuple[int, int]]:
    """Returns chunks of batch and coreset, from the largest to the smallest."""
    chunks, chunk = [(0, 0)], b
    while chunk > _LEAST_CHUNK:
        chunk //= 2
        chunks.append((chunk, 0))
        # A row of the coreset takes several times the memory of a row of the batch.
        chunks.append((chunk, chunk // 4 if chunk // 4 < s else 0))
    return [(a, c) for a, c in chunks if (a >= _LEAST_CHUNK or not a) and c != 1]
