"""Several distillations of equal shape as one program, vmapped.

Runs that differ by their seeds, learning rates and regularisers alone do the same
arithmetic on other numbers. Where a run is too small to fill an accelerator, several of
them do: their states are stacked, and a chunk of steps is ``vmap`` of one run's. Each
has its own directory, validations and checkpoints, as if it were alone, and can go on
alone where it was cut; its numbers are those of a run alone but for rounding.
"""

import contextlib
import copy
import functools
import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from audiodd_jax import settings as settings_lib
from audiodd_jax.config import Config
from audiodd_jax.distillation import loop
from audiodd_jax.distillation.loop import Distilled
from audiodd_jax.distillation.methods import METHODS
from audiodd_jax.distillation.steps import make_scorer, make_steps
from audiodd_jax.features.prepared import HostSplit, Prepared
from audiodd_jax.runtime import devices
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.runtime.interrupt import Interrupted, noted_signals
from audiodd_jax.runtime.journal import Driven, driven
from audiodd_jax.runtime.runs import RunDirectory

_log = logging.getLogger(__name__)

# In what the runs of one program may differ.
VARYING = ("seed", "optimizer.learning_rate", "rfad.regularizer")
METHOD = "rfad"


def common(config: Config) -> dict[str, Any]:
    """What runs must share to be one program."""
    alike = settings_lib.replace(config, dict.fromkeys(VARYING, 0))
    return settings_lib.record(alike, settings_lib.DISTILLATION)


def distill(
    configs: Sequence[Config],
    data: Prepared,
    runs: Sequence[RunDirectory | None],
) -> list[Distilled | UserError]:
    """Runs all to their ends, on one device; one that fails leaves the others going.

    Args:
      configs: of the runs, which differ in ``VARYING`` alone.
      data: the prepared dataset; its test split is never touched.
      runs: where each records, checkpoints and resumes; None keeps it in memory.

    Raises:
      UserError: runs of another method, or that differ in more, or data that does not
        lie on the device.
      Interrupted: SIGTERM or SIGINT came; the states of all are saved.
    """
    first = configs[0]
    if first.method != METHOD or any(common(c) != common(first) for c in configs):
        raise UserError(
            f"runs of one program are of {METHOD} and differ in "
            f"{', '.join(VARYING)} alone"
        )
    if isinstance(data.train, HostSplit):
        raise UserError("runs of one program need the training clips on the device")
    mesh = devices.make_mesh(devices=jax.local_devices()[:1])
    score = make_scorer(first, mesh)
    members = [loop.prepare(config, data, mesh, score) for config in configs]
    chunk = _chunk(first, data, len(configs))
    numbers = [_numbers(config) for config in configs]
    outcomes: dict[int, Distilled | UserError] = {}
    with noted_signals() as stop_signal, contextlib.ExitStack() as stack:
        work: dict[int, Driven] = {}
        for i, member in enumerate(members):
            schedule = loop.schedule_of(configs[i])
            one = driven(member.job, member.state, schedule, runs[i], stop_signal)
            work[i] = stack.enter_context(contextlib.closing(one))
        asked, interruption = {}, None
        taken: dict[int, Any] = dict.fromkeys(work)
        while work:
            for i in list(work):
                try:
                    asked[i] = work[i].send(taken[i])
                except StopIteration as end:
                    outcomes[i] = loop.finished(members[i], end.value)
                    del work[i]
                except UserError as error:
                    outcomes[i] = error
                    _log.info("run %d of %d: %s", i + 1, len(members), error)
                    del work[i]
                except Interrupted as stop:
                    # The others are yet to save theirs.
                    interruption = stop
                    del work[i]
            # Runs that were cut apart from each other have other lengths to go.
            for length in {asked[i].length for i in work}:
                alike = [i for i in work if asked[i].length == length]
                taken |= zip(
                    alike,
                    chunk(
                        [asked[i].state for i in alike],
                        [numbers[i] for i in alike],
                        data.train,
                        length,
                    ),
                    strict=True,
                )
        if interruption:
            raise interruption
    return [outcomes[i] for i in range(len(members))]


def _numbers(
    config: Config,
) -> tuple[Key[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """What tells a run's program from the others': its key, rate and regulariser."""
    rate, regularizer = config.optimizer.learning_rate, config.rfad.regularizer
    return loop.batch_key(config), jnp.float32(rate), jnp.float32(regularizer)


def _chunk(config: Config, data: Prepared, runs: int) -> Any:
    """``chunk(states, numbers, train, length)``: states and metrics, a run each."""
    mesh = devices.make_mesh(devices=jax.local_devices()[:1])
    plan, sizes = loop.plan_of(config, data, mesh, runs)
    grid, stats = devices.grid_of(mesh), data.normalization

    def steps(state: Any, numbers: Any, train: Any, length: int) -> Any:
        key, rate, regularizer = numbers
        own = copy.deepcopy(config)
        # Set in place: a dataclass's own checks know numbers, not traced arrays.
        own.optimizer.learning_rate, own.rfad.regularizer = rate, regularizer
        method = METHODS[METHOD](own, sizes, stats, grid, plan)
        return make_steps(method, stats, own, data.noise)(state, train, key, length)

    # Stacked anew for each chunk: nobody else holds them.
    @functools.partial(jax.jit, static_argnums=3, donate_argnums=0)
    def stacked(states: Any, numbers: Any, train: Any, length: int) -> Any:
        each = functools.partial(steps, length=length)
        return jax.vmap(each, in_axes=(0, 0, None))(states, numbers, train)

    def chunk(
        states: Sequence[Any], numbers: Sequence[Any], train: Any, length: int
    ) -> list[tuple[Any, dict[str, Any]]]:
        stack = lambda *leaves: jnp.stack(leaves)
        methods = jax.tree.map(stack, *(state.method for state in states))
        learnt, metrics = stacked(methods, jax.tree.map(stack, *numbers), train, length)
        metrics = {name: np.asarray(values) for name, values in metrics.items()}
        row = lambda tree, i: jax.tree.map(lambda leaf: leaf[i], tree)
        return [
            (state._replace(method=row(learnt, i)), row(metrics, i))
            for i, state in enumerate(states)
        ]

    return chunk
