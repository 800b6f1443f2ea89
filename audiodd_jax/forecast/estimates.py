"""The predicted cost of runs, before they start: rows that ``--dry_run`` prints.

``local`` forecasts a distillation here; the other functions a command on an accelerator
(``--target``), from its compiler's accounts. The time of a step is then a lower bound:
its arithmetic at the chip's peak, or its bytes at the bandwidth of the chip's memory.
Latency, small operands and communication make a program slower.
"""

from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from audiodd_jax.active_learning import rounds
from audiodd_jax.config import presets
from audiodd_jax.coreset.file import Coreset
from audiodd_jax.coreset.subsets import Subset
from audiodd_jax.distillation import cost, registry
from audiodd_jax.distillation.cost import Cost
from audiodd_jax.errors import UserError
from audiodd_jax.forecast import compilers, programs
from audiodd_jax.forecast.targets import Target
from audiodd_jax.forecast.workload import Workload
from audiodd_jax.kernels.infinite_width import KERNELS
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


def local(work: Workload, mesh: Mesh | None = None) -> Rows:
    """Returns the rows of ``audiodd distill --dry_run``.

    For methods other than RFAD, only the compiler's figure of the memory. ``mesh`` is
    the devices that would share the work; None: all.
    """
    config, sizes = work.config, work.sizes
    networks = config.rfad.networks
    mesh = mesh or registry.make_mesh(config.method, sizes.c, networks)
    grid, device = devices.grid_of(mesh), mesh.local_mesh.devices.flat[0]
    problem = cost.problem_of(config, sizes)
    plan = cost.plan_for_device(problem, grid, device)
    # The compiler knows better than the estimate that chose the plan.
    step = programs.compiled_bytes(work, mesh, plan)
    memory = memory_of(device)
    machine = f"{mesh.size} x {device.device_kind}"
    if config.method != "rfad":
        return [
            *_coreset(work),
            ("devices", machine),
            ("memory", f"{step / 1e9:,.2f} GB per step, without the data, of "
             f"{memory / 1e9:,.1f} GB per device"),
        ]  # fmt: skip
    predicted = cost.predict(problem, grid, plan, device.platform)
    peak = predicted.peak_bytes(step)
    network = config.network
    fits = "" if peak <= memory else "; that is MORE than available"
    s = problem.sizes.s
    return [
        *_coreset(work),
        ("batch", f"{sizes.b:,} of {sizes.train or 'streamed'} training clips"),
        ("random network", f"{network.depth} blocks of {network.width} channels, "
         f"{predicted.parameters:,} parameters, {network.precision}"),
        ("features", f"{predicted.features:,} per clip and network "
         f"({_READOUTS[network.readout]}), {_KEEPS[plan.keeps]}"),
        ("kernels", f"{sizes.b:,} x {s:,} and {s:,} x {s:,}, "
         f"{config.rfad.kernel_precision}"),
        ("devices", f"{machine}: {_shared(networks, grid)}"),
        ("at once", _at_once(plan)),
        ("arithmetic", f"{predicted.flops / 1e9:,.1f} GFLOP per step"),
        ("memory", f"{step / 1e9:,.2f} GB per step, {peak / 1e9:,.2f} GB at the peak, "
         f"of {memory / 1e9:,.1f} GB per device{fits}"),
        ("communication",
         f"{predicted.exchanged_bytes / 1e6:,.2f} MB per step and device"),
    ]  # fmt: skip


def distillation(work: Workload, target: Target) -> Rows:
    """Returns the rows of ``audiodd distill --dry_run --target``."""
    accounts = programs.accounts(target, "distill", work)
    rows, predicted = _coreset(work), None
    if work.config.method in ("rfad", "frepo"):
        chip, problem = target.chip, cost.problem_of(work.config, work.sizes)
        grid = devices.choose_grid(target.size, problem.networks)
        plan = cost.choose_plan(problem, grid, chip.kind, chip.memory)
        predicted = cost.predict(problem, grid, plan, chip.kind)
        text = f"{_shared(problem.networks, grid)}; at once {_at_once(plan)}"
        rows.append(("devices", f"{target.size} x {target.name}: {text}"))
    return _compiled(target, rows, accounts, predicted)


def training(work: Workload, target: Target, learns_from: Subset | Coreset) -> Rows:
    """Returns the rows of ``audiodd train --dry_run --target``."""
    if isinstance(learns_from, Coreset):
        count = learns_from.labels.shape[0] * learns_from.factor
        if learns_from.teacher_labels is not None:
            count = learns_from.teacher_labels.shape[0]
    elif learns_from.samples or learns_from.per_class:
        count = learns_from.samples or learns_from.per_class * work.sizes.c
    else:
        fraction = max(1, round(learns_from.fraction * work.train))
        count = len(learns_from.indices) or fraction
    return _networks("train", work._replace(learns_from=count), target)


def active(work: Workload, target: Target) -> Rows:
    """Returns the rows of ``audiodd active --dry_run --target``: its largest round."""
    train = work.train
    labelled = rounds.clips_in(
        work.config.active.budgets[-1], train + work.validation, work.sizes.c
    )
    work = work._replace(learns_from=min(labelled, train), pool=train)
    return _networks("active", work, target)


def evaluation(
    work: Workload,
    target: Target,
    coreset: Coreset,
    protocols: Sequence[str],
    changes: dict[str, Any],
) -> Rows:
    """Returns the rows of ``audiodd evaluate --dry_run --target``, for each protocol.

    ``changes`` are settings that override each protocol's recipe.

    Raises:
      UserError: a protocol has no program to compile.
    """
    spectrograms = coreset.labels.shape[0] * coreset.factor
    work = work._replace(sizes=work.sizes._replace(s=spectrograms))
    rows: Rows = []
    for protocol in protocols:
        if protocol in KERNELS:
            raise UserError(
                f"{protocol} is computed in tiles, one after the other: there is no "
                "program to forecast"
            )
        if protocol == "krr":
            rows += _compiled(target, [], programs.accounts(target, "evaluate", work))
        else:
            recipe = presets.for_model(work.config, protocol, **changes)
            rows += training(work._replace(config=recipe), target, coreset)
    return rows


def _networks(command: str, work: Workload, target: Target) -> Rows:
    """Returns the rows of the training of networks."""
    settings, sizes = work.config.training, work.sizes
    text = (
        f"{work.config.model.name}, {settings.precision}, {settings.seeds} of them on "
        f"{work.learns_from:,} spectrograms of {sizes.f} x {sizes.t}"
    )
    accounts = programs.accounts(target, command, work)
    return _compiled(target, [("network", text)], accounts)


def _coreset(work: Workload) -> Rows:
    sizes = work.sizes
    shape = f"{sizes.s:,} spectrograms of {sizes.f} x {sizes.t}, {sizes.c} classes"
    short = [("short classes", work.shortage)] if work.shortage else []
    return [("coreset", shape), *short]


def _shared(networks: int, grid: Grid) -> str:
    return f"{grid.networks} share {networks} networks, {grid.batch} the batch"


def _at_once(plan: Plan) -> str:
    """Returns how much a step computes at once, in words."""
    text = f"{plan.chunk:,} clips" if plan.chunk else "the whole batch"
    if plan.coreset_chunk:
        text += f", {plan.coreset_chunk:,} coreset spectrograms"
    return text


def _compiled(
    target: Target,
    rows: Rows,
    accounts: list[dict[str, Any]],
    predicted: Cost | None = None,
) -> Rows:
    """Returns the rows of a target: those given, and those of the compiler's accounts.

    The first account is that of a step.
    """
    chip, step = target.chip, accounts[0]
    versions = compilers.versions(chip.kind).items()
    chips = f"{target.size} x {target.name}" if target.size > 1 else target.name
    by = ", ".join(f"{name} {version}" for name, version in versions)
    of_target = f"{chips} of {chip.memory / 1e9:,.1f} GB, compiled by {by}"
    ends = [
        f"{each['program']} failed"
        if "error" in each
        else f"{each['program']} in {each['seconds']:.0f} s"
        for each in accounts
    ]
    rows = [("target", of_target), *rows, ("programs", "; ".join(ends))]
    failed = [each for each in accounts if "error" in each]
    rows += [(f"no {each['program']}", each["error"]) for each in failed]
    if "error" in step:
        return rows
    steps = step["steps"]
    most = max(each["memory"] for each in accounts if "error" not in each)
    fits = "" if most <= chip.memory else "; that is MORE than available"
    needs = f"{_size(step['step_bytes'])} per step"
    exchanged = ", ".join(
        f"{count / steps:g} {name} of {_size(size / steps)}"
        for name, (count, size) in sorted(step["collectives"].items())
    )
    if predicted is not None:
        needs += f" (predicted {_size(predicted.step_bytes)})"
        if exchanged:
            exchanged += f" (predicted {_size(predicted.exchanged_bytes)})"
    flops, size = step["flops"] / steps, step["bytes"] / steps
    peak = chip.peak[step["precision"]]
    arithmetic, traffic = flops / peak, size / chip.bandwidth
    longer = "memory" if traffic > arithmetic else "arithmetic"
    return [
        *rows,
        ("memory", f"{needs}, {_size(most)} with its data, of "
         f"{chip.memory / 1e9:,.1f} GB per chip{fits}"),
        ("collectives", f"{exchanged or 'none'} per step and chip"),
        ("arithmetic", f"{flops / 1e9:,.1f} GFLOP per step and chip: "
         f"{_time(arithmetic)} at {peak / 1e12:,.1f} TFLOP/s ({step['precision']})"),
        ("bytes moved", f"{_size(size)} per step and chip: "
         f"{_time(traffic)} at {chip.bandwidth / 1e9:,.0f} GB/s"),
        ("lower bound", f"{_time(max(arithmetic, traffic))} per step, by {longer}"),
    ]  # fmt: skip


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:,.2f} ms" if seconds < 1 else f"{seconds:,.2f} s"


def _size(count: int | float) -> str:
    """Returns a number of bytes in words, with about three digits."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:,.2f} {name}"
    return f"{count / 1e3:,.1f} kB"
