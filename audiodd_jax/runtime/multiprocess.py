"""Several processes as one run: how they start, agree, and notice a lost process.

Only process 0 reads and writes the run directory, and broadcasts what others need.
"""

import inspect
import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from audiodd_jax.errors import UserError

# Parts of error messages that mean that another process cannot be reached.
_LOST = re.compile(
    "UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|connection|heartbeat|barrier|peer|gloo|"
    "coordination|nccl",
    re.IGNORECASE,
)
# Seconds without a heartbeat after which a process counts as lost.
_HEARTBEAT_SECONDS = 60

# Variables with the number of processes that Slurm (a step of several tasks), Open MPI
# and a TPU pod of several slices started.
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "MEGASCALE_NUM_SLICES")
_TPU_HOSTS = "TPU_WORKER_HOSTNAMES"


def in_cluster(environment: Mapping[str, str] = os.environ) -> bool:
    """Returns whether a cluster that JAX recognises started several processes."""
    counts = [environment.get(name, "1").strip() for name in _COUNTS]
    hosts = environment.get(_TPU_HOSTS, "").split(",")
    return len(hosts) > 1 or any(count not in ("", "0", "1") for count in counts)


def without_cluster(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables for a run of one process, whatever started this one."""
    names = (*_COUNTS, _TPU_HOSTS, "TPU_WORKER_ID")
    return {name: value for name, value in environment.items() if name not in names}


def join(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the other processes of the run; does nothing for a run of one process.

    The address is that of process 0; a cluster sets it and the numbers by itself.

    Raises:
      UserError: they cannot be joined, or the arguments do not fit each other.
    """
    given = (coordinator_address, num_processes, process_id)
    if not any(value is not None for value in given):
        if not in_cluster():
            return
    elif None in given:
        raise UserError(
            "--coordinator_address, --num_processes and --process_id go together"
        )
    elif not re.fullmatch(r".+:\d+", coordinator_address):
        raise UserError(
            f"--coordinator_address must be HOST:PORT, not {coordinator_address!r}"
        )
    elif num_processes < 1:
        raise UserError(f"--num_processes must be at least 1, not {num_processes}")
    elif not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id must be 0 to {num_processes - 1}, not {process_id}"
        )
    options = {}
    # Older versions of JAX have a fixed limit.
    parameters = inspect.signature(jax.distributed.initialize).parameters
    if "heartbeat_timeout_seconds" in parameters:
        options["heartbeat_timeout_seconds"] = _HEARTBEAT_SECONDS
    try:
        jax.distributed.initialize(*given, **options)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the run's other processes cannot be joined: {reason}"
        ) from error


def is_process_zero() -> bool:
    """Returns whether this is process 0, which reads and writes for all."""
    return jax.process_index() == 0


def lost(error: BaseException) -> bool:
    """Returns whether an error means that another process of the run is lost."""
    return (
        isinstance(error, jax.errors.JaxRuntimeError)
        and bool(_LOST.search(str(error)))
        and jax.process_count() > 1
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error means that a device is out of memory."""
    is_jax = isinstance(error, jax.errors.JaxRuntimeError)
    return is_jax and "RESOURCE_EXHAUSTED" in str(error)


def leaves_others_waiting(error: BaseException) -> bool:
    """Returns whether other processes may wait for this one, which has failed."""
    if not jax.distributed.is_initialized():  # starts no backend, unlike process_count
        return False
    return jax.process_count() > 1 and not getattr(error, "is_shared", False)


def any_of(value: int) -> int:
    """Returns the largest value in all processes, such as a received signal."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).max())


def from_process_zero(function: Callable[[], Any]) -> Any:
    """Calls ``function`` in process 0; returns its JSON value in every process.

    A UserError is raised in every process, too.
    """
    if jax.process_count() == 1:
        return function()
    message: dict[str, Any] = {}
    if is_process_zero():
        try:
            message = {"value": function()}
        except UserError as error:
            message = {"error": str(error)}
    text = np.frombuffer(json.dumps(message).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(text.size)))
    text = np.resize(text, size)
    message = json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(text))))
    if "error" in message:
        error = UserError(message["error"])
        error.is_shared = True
        raise error
    return message["value"]


def arrays_from_process_zero(tree: Any) -> Any:
    """Returns the arrays of process 0 in every process, as NumPy arrays."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))
