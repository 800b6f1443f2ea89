"""What a distillation would take, told before anything is computed."""

from jax.sharding import Mesh

from audiodd_jax.config import Config
from audiodd_jax.config.names import SELECTION
from audiodd_jax.distillation import memory_plan, steps
from audiodd_jax.distillation.memory_plan import Sizes
from audiodd_jax.runtime import devices
from audiodd_jax.runtime.errors import UserError

_READOUTS = {
    "flatten": "the whole last feature map",
    "time_mean": "its mean over time",
    "dense": "a random head",
}


def rows(config: Config, sizes: Sizes, mesh: Mesh) -> list[tuple[str, str]]:
    """Rows of name and value: shapes, arithmetic, memory, exchange, and the plan.

    Of methods other than RFAD, what the compiler says alone.

    Args:
      config: of the run.
      sizes: of its data.
      mesh: the devices that would share the work.

    Raises:
      UserError: a choice of real clips.
    """
    grid, device = devices.grid_of(mesh), mesh.local_mesh.devices.flat[0]
    if config.method in SELECTION:
        raise UserError(f"{config.method} chooses clips: there is no step to forecast")
    plan, memory = (
        memory_plan.choose(config, sizes, grid, device),
        memory_plan.memory_of(device),
    )
    coreset = f"{sizes.s:,} spectrograms of {sizes.f} x {sizes.t}, {sizes.c} classes"
    if config.method != "rfad":
        step = steps.compiled_bytes(config, sizes, mesh, plan)
        return [
            ("coreset", coreset),
            ("devices", f"{mesh.size} x {device.device_kind}"),
            ("memory", f"{step / 1e9:,.2f} GB a step beside the data, of "
             f"{memory / 1e9:,.1f} GB a device"),
        ]  # fmt: skip
    found = memory_plan.predict(config, sizes, grid, plan, device.platform)
    # The compiler knows better than the estimate that chose the plan.
    step = steps.compiled_bytes(config, sizes, mesh, plan)
    peak = found.peak_bytes(step)
    network = config.network
    at_once = f"{plan.chunk:,} clips" if plan.chunk else "the whole batch"
    if plan.coreset_chunk:
        at_once += f", {plan.coreset_chunk:,} coreset spectrograms"
    kept = {"features": "kept for the backward pass", "nothing": "computed twice"}
    fits = "" if peak <= memory else "; that is MORE than there is"
    return [
        ("coreset", coreset),
        ("batch", f"{sizes.b:,} of {sizes.train or 'streamed'} clips"),
        ("random network", f"{network.depth} blocks of {network.width} channels, "
         f"{found.parameters:,} numbers, {network.precision}"),
        ("features", f"{found.features:,} a clip and network "
         f"({_READOUTS[network.readout]}), {kept[plan.keeps]}"),
        ("kernels", f"{sizes.b:,} x {sizes.s:,} and {sizes.s:,} x {sizes.s:,}, "
         f"{config.rfad.kernel_precision}"),
        ("devices", f"{mesh.size} x {device.device_kind}: {grid.networks} share "
         f"{config.rfad.networks} networks, {grid.batch} the batch"),
        ("at once", at_once),
        ("arithmetic", f"{found.flops / 1e9:,.1f} GFLOP a step"),
        ("memory", f"{step / 1e9:,.2f} GB a step, {peak / 1e9:,.2f} GB at the peak, "
         f"of {memory / 1e9:,.1f} GB a device{fits}"),
        ("exchange", f"{found.exchanged_bytes / 1e6:,.2f} MB a step and device"),
    ]  # fmt: skip
