"""The predicted cost of a distillation on this machine, before it starts."""

from jax.sharding import Mesh

from audiodd_jax.distillation import cost, memory_plan, registry
from audiodd_jax.forecast import programs
from audiodd_jax.forecast.workload import Workload, check_steps
from audiodd_jax.kernels.random_kernels import Plan
from audiodd_jax.runtime import devices
from audiodd_jax.runtime.devices import Grid
from audiodd_jax.runtime.memory import memory_of

Rows = list[tuple[str, str]]

_READOUTS = {
    "flatten": "the whole last feature map",
    "time_mean": "its mean over time",
    "dense": "a random head",
}
_KEEPS = {"features": "kept for the backward pass", "nothing": "recomputed"}


def rows(work: Workload, mesh: Mesh | None = None) -> Rows:
    """Returns shapes, arithmetic, memory, communication, and the plan, by name.

    For methods other than RFAD, only the compiler's figure of the memory. ``mesh`` is
    the devices that would share the work; None: all.

    Raises:
      UserError: the method selects real clips.
    """
    config, sizes = work.config, work.sizes
    check_steps(config.method)
    networks = config.rfad.networks
    mesh = mesh or registry.make_mesh(config.method, sizes.c, networks)
    grid, device = devices.grid_of(mesh), mesh.local_mesh.devices.flat[0]
    problem = cost.problem_of(config, sizes)
    plan = memory_plan.for_device(problem, grid, device)
    # The compiler knows better than the estimate that chose the plan.
    step = programs.compiled_bytes(work, mesh, plan)
    memory = memory_of(device)
    machine = f"{mesh.size} x {device.device_kind}"
    if config.method != "rfad":
        return [
            coreset_row(work),
            ("devices", machine),
            ("memory", f"{step / 1e9:,.2f} GB per step, without the data, of "
             f"{memory / 1e9:,.1f} GB per device"),
        ]  # fmt: skip
    predicted = cost.predict(problem, grid, plan, device.platform)
    peak = predicted.peak_bytes(step)
    network = config.network
    fits = "" if peak <= memory else "; that is MORE than available"
    return [
        coreset_row(work),
        ("batch", f"{sizes.b:,} of {sizes.train or 'streamed'} clips"),
        ("random network", f"{network.depth} blocks of {network.width} channels, "
         f"{predicted.parameters:,} parameters, {network.precision}"),
        ("features", f"{predicted.features:,} per clip and network "
         f"({_READOUTS[network.readout]}), {_KEEPS[plan.keeps]}"),
        ("kernels", f"{sizes.b:,} x {sizes.s:,} and {sizes.s:,} x {sizes.s:,}, "
         f"{config.rfad.kernel_precision}"),
        ("devices", f"{machine}: {shared(networks, grid)}"),
        ("at once", at_once(plan)),
        ("arithmetic", f"{predicted.flops / 1e9:,.1f} GFLOP per step"),
        ("memory", f"{step / 1e9:,.2f} GB per step, {peak / 1e9:,.2f} GB at the peak, "
         f"of {memory / 1e9:,.1f} GB per device{fits}"),
        ("communication",
         f"{predicted.exchanged_bytes / 1e6:,.2f} MB per step and device"),
    ]  # fmt: skip


def coreset_row(work: Workload) -> tuple[str, str]:
    """Returns the row of the coreset's shape."""
    sizes = work.sizes
    shape = f"{sizes.s:,} spectrograms of {sizes.f} x {sizes.t}, {sizes.c} classes"
    return "coreset", shape


def at_once(plan: Plan) -> str:
    """Returns how much a step computes at once, in words."""
    text = f"{plan.chunk:,} clips" if plan.chunk else "the whole batch"
    if plan.coreset_chunk:
        text += f", {plan.coreset_chunk:,} coreset spectrograms"
    return text


def shared(networks: int, grid: Grid) -> str:
    """Returns how devices share the work on random networks, in words."""
    return f"{grid.networks} share {networks} networks, {grid.batch} the batch"
