"""A sweep on a Ray cluster: one task per run, retried when a worker dies.

All nodes need the package, and the sweep's folder and the data under the same paths or
URLs. A run whose worker died resumes from its last checkpoint.
"""

import logging
import os
import socket
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NamedTuple

from audiodd_jax.errors import UserError
from audiodd_jax.sweep import local, status
from audiodd_jax.sweep.plan import Planned
from audiodd_jax.sweep.status import Sweep


class Resources(NamedTuple):
    """CPU cores, GPUs (fractions share one) and TPU chips of a run."""

    cpus: float = 1.0
    gpus: float = 0.0
    tpus: float = 0.0


def run(
    plans: Sequence[Planned],
    sweep: Sweep,
    address: str,
    resources: Resources,
    update: Callable[[], None],
    stop_signal: Callable[[], int],
) -> None:
    """Runs all plans on a cluster, with ``local.run``'s functions.

    Args:
      address: ``auto``, ``HOST:PORT``, or ``local`` to start a cluster here.

    Raises:
      UserError: Ray is not installed, or the cluster cannot be reached.
    """
    ray = _connect(address)
    try:
        _check_resources(ray.cluster_resources(), resources)
        task = ray.remote(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            resources={"TPU": resources.tpus} if resources.tpus else None,
            max_retries=sweep.retries,
        )(local.perform)
        environment = {}
        if 0 < resources.gpus < 1:
            # Otherwise the first run would allocate all of a shared GPU's memory.
            environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        waiting = {task.remote(plan, sweep, environment): plan for plan in plans}
        is_cancelled = False
        while waiting:
            if stop_signal() and not is_cancelled:
                is_cancelled = True
                for reference in waiting:
                    ray.cancel(reference)
            done, _ = ray.wait(list(waiting), timeout=0.5)
            for reference in done:
                plan = waiting.pop(reference)
                try:
                    status.add(sweep.workdir, ray.get(reference))
                except ray.exceptions.TaskCancelledError:
                    pass
                except ray.exceptions.RayError as error:
                    # The worker could not record it.
                    reason = str(error).strip().splitlines()[0]
                    if not status.is_finished(sweep.workdir, plan):
                        status.record(sweep.workdir, plan.name, "failed", reason=reason)
            update()
    finally:
        ray.shutdown()


def _connect(address: str) -> ModuleType:
    """Imports Ray and connects it to the cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "a sweep on a cluster needs Ray: pip install 'audiodd_jax[sweep]'"
        ) from error
    host, _, port = address.rpartition(":")
    is_remote = address not in ("auto", "local")
    if is_remote and not (host and port.isdigit()):
        raise UserError(f"--ray must be auto, HOST:PORT or local, not {address!r}")
    try:
        if is_remote:
            # Ray would wait for minutes where nothing listens.
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(
            address=None if address == "local" else address,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        raise UserError(f"no Ray cluster at {address}: {error}") from error
    return ray


def _check_resources(available: dict[str, float], wanted: Resources) -> None:
    """Checks that the cluster has the resources of a run; Ray would wait forever."""
    for name, count in zip(("CPU", "GPU", "TPU"), wanted, strict=True):
        if count > available.get(name, 0):
            raise UserError(
                f"a run needs {count:g} {name}, but the cluster has "
                f"{available.get(name, 0):g}"
            )
