"""Compiler-based cost estimates for accelerators you don't have.

The functions return the rows that ``--dry_run --target`` prints. The time of a step is
a lower bound: its arithmetic at the chip's peak, or its bytes at the bandwidth of the
chip's memory, whichever takes longer. Latency, small operands and communication make a
program slower.
"""

from collections.abc import Sequence
from typing import Any

from audiodd_jax.active_learning import rounds
from audiodd_jax.config import presets
from audiodd_jax.coreset.file import Coreset
from audiodd_jax.coreset.subsets import Subset
from audiodd_jax.distillation import cost, memory_plan
from audiodd_jax.distillation.cost import Cost
from audiodd_jax.errors import UserError
from audiodd_jax.forecast import compilers, dry_run
from audiodd_jax.forecast.dry_run import Rows
from audiodd_jax.forecast.targets import Target
from audiodd_jax.forecast.workload import Workload
from audiodd_jax.kernels.infinite_width import KERNELS
from audiodd_jax.runtime import devices

_MODULE = "audiodd_jax.forecast.compile_worker"
# For the programs of a command; the longest took four minutes on two CPU cores.
_SECONDS = 1800.0


def compile_programs(
    target: Target, command: str, work: Workload, only: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Returns the compiler's account of each program of a command.

    ``only`` names some of the programs of ``programs.of_command``.

    Raises:
      UserError: the compiler is not installed, or does not know the target.
    """
    request = {
        "target": str(target),
        "command": command,
        "work": work.to_json(),
        "only": list(only),
    }
    return compilers.ask(target, request, _MODULE, _SECONDS)


def distillation(work: Workload, target: Target) -> Rows:
    """Returns the rows of ``audiodd distill --dry_run --target``."""
    accounts = compile_programs(target, "distill", work)
    rows = [_heading(target), dry_run.coreset_row(work)]
    predicted = None
    if work.config.method in ("rfad", "frepo"):
        chip, problem = target.chip, cost.problem_of(work.config, work.sizes)
        grid = devices.choose_grid(target.size, problem.networks)
        plan = memory_plan.choose(problem, grid, chip.kind, chip.memory)
        predicted = cost.predict(problem, grid, plan, chip.kind)
        shared = dry_run.shared(problem.networks, grid)
        text = f"{shared}; at once {dry_run.at_once(plan)}"
        rows.append(("devices", f"{target.size} x {target.name}: {text}"))
    return rows + _compiled(target, accounts, predicted)


def training(work: Workload, target: Target, learns_from: Subset | Coreset) -> Rows:
    """Returns the rows of ``audiodd train --dry_run --target``."""
    count = _spectrograms(learns_from, work)
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
            accounts = compile_programs(target, "evaluate", work)
            rows += [_heading(target), *_compiled(target, accounts)]
        else:
            recipe = presets.for_model(work.config, protocol, **changes)
            rows += training(work._replace(config=recipe), target, coreset)
    return rows


def _networks(command: str, work: Workload, target: Target) -> Rows:
    """Returns the rows of the training of networks."""
    accounts = compile_programs(target, command, work)
    settings, sizes = work.config.training, work.sizes
    name = work.config.model.name
    rows = [
        _heading(target),
        ("network", f"{name}, {settings.precision}, {settings.seeds} of them on "
         f"{work.learns_from:,} spectrograms of {sizes.f} x {sizes.t}"),
    ]  # fmt: skip
    return rows + _compiled(target, accounts)


def _spectrograms(learns_from: Subset | Coreset, work: Workload) -> int:
    """Returns the number of spectrograms of a training set."""
    if isinstance(learns_from, Coreset):
        if learns_from.teacher_labels is not None:
            return learns_from.teacher_labels.shape[0]
        return learns_from.labels.shape[0] * learns_from.factor
    if learns_from.per_class:
        return learns_from.per_class * work.sizes.c
    fraction = max(1, round(learns_from.fraction * work.train))
    return len(learns_from.indices) or fraction


def _heading(target: Target) -> tuple[str, str]:
    chip = target.chip
    versions = compilers.versions(chip.kind).items()
    chips = f"{target.size} x {target.name}" if target.size > 1 else target.name
    by = ", ".join(f"{name} {version}" for name, version in versions)
    return "target", f"{chips} of {chip.memory / 1e9:,.1f} GB, compiled by {by}"


def _compiled(
    target: Target, accounts: list[dict[str, Any]], predicted: Cost | None = None
) -> Rows:
    """Returns the rows of the compiler's accounts, the first of which is a step."""
    step, errors = accounts[0], [each for each in accounts if "error" in each]
    rows: Rows = [("programs", "; ".join(map(_program, accounts)))]
    rows += [(f"no {each['program']}", each["error"]) for each in errors]
    if "error" in step:
        return rows
    chip, steps = target.chip, step["steps"]
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


def _program(account: dict[str, Any]) -> str:
    if "error" in account:
        return f"{account['program']} failed"
    return f"{account['program']} in {account['seconds']:.0f} s"


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:,.2f} ms" if seconds < 1 else f"{seconds:,.2f} s"


def _size(count: int | float) -> str:
    """Returns a number of bytes in words, with about three digits."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:,.2f} {name}"
    return f"{count / 1e3:,.1f} kB"
