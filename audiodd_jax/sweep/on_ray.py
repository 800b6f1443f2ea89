"""A sweep on a Ray cluster: a task a run, tried again where a worker dies.

All nodes must have the package, and see the sweep's folder and the data under the same
paths. A run whose worker died goes on from its last checkpoint.
"""

import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from audiodd_jax.runtime.errors import UserError
from audiodd_jax.sweep import run_process
from audiodd_jax.sweep.plan import Planned


class Resources(NamedTuple):
    """What a run takes of the cluster.

    Attributes:
      cpus: cores.
      gpus: GPUs; less than one shares one.
      tpus: TPU chips.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    tpus: float = 0.0


def run(
    plans: Sequence[Planned],
    workdir: Path,
    folder: Path,
    address: str,
    resources: Resources,
    retries: int,
    show: Callable[[], None],
    stopping: Callable[[], int],
) -> None:
    """Runs all on a cluster; how each ended is in the sweep's record.

    Args:
      plans: the runs.
      workdir: the sweep's, on a file system that all nodes share.
      folder: where relative paths among the flags begin.
      address: of the cluster: ``auto``, ``HOST:PORT``, or ``local`` to begin one here.
      resources: of a run.
      retries: of a run whose worker, node or process dies.
      show: called between looks at the tasks.
      stopping: the signal that came, or 0; runs are then told to save and end.

    Raises:
      UserError: Ray is not installed, or there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "a sweep on a cluster needs Ray: pip install 'audiodd_jax[sweep]'"
        ) from error
    _refuse_where_nobody_listens(address)
    try:
        ray.init(
            address=None if address == "local" else address,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"there is no Ray cluster at {address}: {error}") from error
    try:
        _refuse_what_never_fits(ray.cluster_resources(), resources)
        # A share of a GPU must not be taken whole by the first run that comes.
        environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        task = ray.remote(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            resources={"TPU": resources.tpus} if resources.tpus else None,
            max_retries=retries,
        )(run_process.perform)
        extra = environment if 0 < resources.gpus < 1 else {}
        waiting = {
            task.remote(plan, workdir, folder, retries, extra): plan for plan in plans
        }
        told = False
        while waiting:
            if stopping() and not told:
                told = True
                for reference in waiting:
                    ray.cancel(reference)
            done, _ = ray.wait(list(waiting), timeout=0.5)
            for reference in done:
                _settle(ray, reference, waiting.pop(reference), workdir)
            show()
    finally:
        ray.shutdown()


def _refuse_where_nobody_listens(address: str) -> None:
    """Refuses ``HOST:PORT`` where nothing is, on which Ray would wait for minutes.

    Raises:
      UserError: naming it.
    """
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--ray is auto, HOST:PORT or local, not {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"there is no Ray cluster at {address}: {error}") from error


def _settle(ray, reference, plan: Planned, workdir: Path) -> None:
    """Records how a task ended whose worker could not."""
    try:
        ray.get(reference)
    except ray.exceptions.TaskCancelledError:
        pass
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        if not run_process.is_finished(workdir, plan):
            run_process.record(workdir, plan.name, "failed", reason=reason)


def _refuse_what_never_fits(there: dict[str, float], wanted: Resources) -> None:
    """Refuses resources that the whole cluster has not, for which Ray would wait.

    Raises:
      UserError: naming the resource.
    """
    for name, count in zip(("CPU", "GPU", "TPU"), wanted, strict=True):
        if count > there.get(name, 0):
            raise UserError(
                f"a run asks for {count:g} {name}, and the cluster has "
                f"{there.get(name, 0):g}"
            )
