"""The predicted cost of a distillation, before anything is computed."""

from jax.sharding import Mesh

from audiodd_jax.active_learning import labelled_subset
from audiodd_jax.config import Config
from audiodd_jax.config.names import SELECTION
from audiodd_jax.coreset import packing
from audiodd_jax.data import splits, tags
from audiodd_jax.distillation import memory_plan, registry, steps
from audiodd_jax.distillation.memory_plan import Plan, Sizes
from audiodd_jax.errors import UserError
from audiodd_jax.features import cache, dataset
from audiodd_jax.runtime import devices
from audiodd_jax.runtime.devices import Grid

_READOUTS = {
    "flatten": "the whole last feature map",
    "time_mean": "its mean over time",
    "dense": "a random head",
}


def forecast(config: Config) -> list[tuple[str, str]]:
    """Prepares the dataset, and returns the rows of what a run on it would cost.

    Args:
      config: run configuration.

    Raises:
      UserError: the dataset cannot be used, or the method selects real clips.
    """
    sizes, _ = measured(config)
    return rows(config, sizes, registry.make_mesh(config, sizes.c))


def measured(config: Config) -> tuple[Sizes, int]:
    """Prepares the dataset; the sizes of a run on it, and its validation clips.

    Args:
      config: run configuration.

    Raises:
      UserError: the dataset cannot be used, or not by the method.
    """
    if config.labels.is_part:
        data = dataset.load(config.data, config.features)
        data = labelled_subset.restrict(config, data)
        train, validation = len(data.train.labels), 0
        tested, shape = len(data.test.labels), data.image_shape
        classes, has_tags = data.num_classes, data.has_tags
    else:
        found = cache.prepare(config.data, config.features)
        parts = splits.assign(
            found.labels, found.splits, found.folds, found.groups, config.data
        )
        train, validation, tested = (part.size for part in parts)
        shape, classes = found.features.shape[1:3], len(found.class_names)
        has_tags = tags.are_tags(found.labels)
    registry.check_labels(config.method, has_tags)
    packing.check(shape[1], config.coreset.factor)
    sizes = memory_plan.sizes_of(config, shape, classes, train, validation + tested)
    return sizes, validation


def rows(config: Config, sizes: Sizes, mesh: Mesh) -> list[tuple[str, str]]:
    """Rows of name and value: shapes, arithmetic, memory, communication, and the plan.

    For methods other than RFAD, only the compiler's figure of the memory.

    Args:
      config: run configuration.
      sizes: sizes of its data.
      mesh: the devices that would share the work.

    Raises:
      UserError: the method selects real clips.
    """
    grid, device = devices.grid_of(mesh), mesh.local_mesh.devices.flat[0]
    if config.method in SELECTION:
        raise UserError(f"{config.method} selects clips: there is no step to forecast")
    plan = memory_plan.choose(config, sizes, grid, device)
    memory = memory_plan.memory_of(device)
    coreset = f"{sizes.s:,} spectrograms of {sizes.f} x {sizes.t}, {sizes.c} classes"
    if config.method != "rfad":
        step = steps.compiled_bytes(config, sizes, mesh, plan)
        return [
            ("coreset", coreset),
            ("devices", f"{mesh.size} x {device.device_kind}"),
            ("memory", f"{step / 1e9:,.2f} GB per step, without the data, of "
             f"{memory / 1e9:,.1f} GB per device"),
        ]  # fmt: skip
    found = memory_plan.predict(config, sizes, grid, plan, device.platform)
    # The compiler knows better than the estimate that chose the plan.
    step = steps.compiled_bytes(config, sizes, mesh, plan)
    peak = found.peak_bytes(step)
    network = config.network
    kept = {"features": "kept for the backward pass", "nothing": "recomputed"}
    fits = "" if peak <= memory else "; that is MORE than available"
    return [
        ("coreset", coreset),
        ("batch", f"{sizes.b:,} of {sizes.train or 'streamed'} clips"),
        ("random network", f"{network.depth} blocks of {network.width} channels, "
         f"{found.parameters:,} parameters, {network.precision}"),
        ("features", f"{found.features:,} per clip and network "
         f"({_READOUTS[network.readout]}), {kept[plan.keeps]}"),
        ("kernels", f"{sizes.b:,} x {sizes.s:,} and {sizes.s:,} x {sizes.s:,}, "
         f"{config.rfad.kernel_precision}"),
        ("devices", f"{mesh.size} x {device.device_kind}: {shared(config, grid)}"),
        ("at once", at_once(plan)),
        ("arithmetic", f"{found.flops / 1e9:,.1f} GFLOP per step"),
        ("memory", f"{step / 1e9:,.2f} GB per step, {peak / 1e9:,.2f} GB at the peak, "
         f"of {memory / 1e9:,.1f} GB per device{fits}"),
        ("communication", f"{found.exchanged_bytes / 1e6:,.2f} MB per step and device"),
    ]  # fmt: skip


def at_once(plan: Plan) -> str:
    """What a step computes at once, in words."""
    text = f"{plan.chunk:,} clips" if plan.chunk else "the whole batch"
    if plan.coreset_chunk:
        text += f", {plan.coreset_chunk:,} coreset spectrograms"
    return text


def shared(config: Config, grid: Grid) -> str:
    """How RFAD's work is divided among devices, in words."""
    networks = config.rfad.networks
    return f"{grid.networks} share {networks} networks, {grid.batch} the batch"
