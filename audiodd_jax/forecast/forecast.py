"""What a command would take on an accelerator that is not there, by its compiler.

The functions return the rows that ``--dry_run --target`` prints. The time of a step is
a bound: what its arithmetic takes at the chip's peak, or what its bytes take at its
memory's bandwidth, whichever is longer. Latencies, small operands and exchanges make a
program slower.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from audiodd_jax.active_learning import budgets
from audiodd_jax.config import Config, presets
from audiodd_jax.config.names import SELECTION
from audiodd_jax.coreset.file import Coreset
from audiodd_jax.coreset.subsets import Subset
from audiodd_jax.distillation import memory_plan
from audiodd_jax.distillation.memory_plan import Cost, Sizes
from audiodd_jax.errors import UserError
from audiodd_jax.forecast import compilers, dry_run
from audiodd_jax.forecast.targets import Target
from audiodd_jax.kernels.infinite_width import KERNELS
from audiodd_jax.runtime import devices

_MODULE = "audiodd_jax.forecast.compile_worker"
# For the programs of a command; the longest took four minutes on two CPU cores.
_SECONDS = 1800.0

Rows = list[tuple[str, str]]


def request(
    target: Target,
    command: str,
    config: Config,
    sizes: Sizes,
    *counts: int,
    only: tuple[str, ...] = (),
    save: str = "",
) -> dict[str, Any]:
    """What ``compile_for_target`` reads.

    Args:
      target: to compile for.
      command: whose programs (``device_programs.of_command``).
      config: of the run.
      sizes: of its data.
      *counts: the other fields of ``device_programs.Workload``.
      only: names of programs; empty: all.
      save: folder for the programs' texts.
    """
    return {
        "target": str(target),
        "command": command,
        "config": dataclasses.asdict(config),
        "sizes": list(sizes),
        "counts": list(counts),
        "only": list(only),
        "save": save,
    }


def compile_programs(
    target: Target, asked: dict[str, Any], seconds: float = _SECONDS
) -> list[dict[str, Any]]:
    """The compiler's account of each program of a request (``compile_for_target``).

    Args:
      target: to compile for.
      asked: of ``request``.
      seconds: that they may take.

    Raises:
      UserError: there is no compiler, or it knows no such target.
    """
    return compilers.ask(target, asked, _MODULE, seconds)


def of_distillation(config: Config, target: Target) -> Rows:
    """Rows of ``audiodd distill --dry_run --target``.

    Args:
      config: of the run.
      target: that it would run on.

    Raises:
      UserError: the dataset or the target cannot be used, or the method takes no steps.
    """
    if config.method in SELECTION:
        raise UserError(f"{config.method} selects clips: there is no step to forecast")
    compilers.versions(target.chip.kind)
    sizes, validation = dry_run.measured(config)
    return distillation_rows(config, target, sizes, validation)


def distillation_rows(
    config: Config, target: Target, sizes: Sizes, validation: int
) -> Rows:
    """The same, for data of these sizes."""
    asked = request(target, "distill", config, sizes, validation)
    found = compile_programs(target, asked)
    rows = [
        _heading(target),
        ("coreset", f"{sizes.s:,} spectrograms of {sizes.f} x {sizes.t}, {sizes.c} "
         "classes"),
    ]  # fmt: skip
    predicted = None
    if config.method in ("rfad", "frepo"):
        own = memory_plan.as_random(config)
        grid = devices.choose_grid(target.size, own.rfad.networks)
        chip = target.chip
        plan = memory_plan.choose(
            config, sizes, grid, platform=chip.kind, memory=chip.memory
        )
        predicted = memory_plan.predict(own, sizes, grid, plan, chip.kind)
        shared = f"{dry_run.shared(own, grid)}; at once {dry_run.at_once(plan)}"
        rows.append(("devices", f"{target.size} x {target.name}: {shared}"))
    return rows + _compiled(target, found, predicted)


def of_training(
    config: Config,
    target: Target,
    learns_from: Subset | Coreset,
) -> Rows:
    """Rows of ``audiodd train --dry_run --target``.

    Args:
      config: of the run.
      target: that it would run on.
      learns_from: the training set.
    """
    compilers.versions(target.chip.kind)
    sizes, validation = dry_run.measured(config)
    count = _clips(learns_from, sizes)
    return _network_rows("train", config, target, sizes, validation, count)


def of_active(config: Config, target: Target) -> Rows:
    """Rows of ``audiodd active --dry_run --target``: its largest round.

    Args:
      config: of the run.
      target: that it would run on.
    """
    compilers.versions(target.chip.kind)
    sizes, validation = dry_run.measured(config)
    train = sizes.train or sizes.b
    last = budgets.clips(config.active.budgets[-1], train + validation, sizes.c)
    count = min(last, train)
    return _network_rows("active", config, target, sizes, validation, count, train)


def of_evaluation(
    config: Config,
    target: Target,
    coreset: Coreset,
    protocols: Sequence[str],
    changes: dict[str, Any],
) -> Rows:
    """Rows of ``audiodd evaluate --dry_run --target``, for each protocol.

    Args:
      config: of the data and the evaluation.
      target: that it would run on.
      coreset: to score.
      protocols: names.
      changes: settings that override each protocol's recipe.
    """
    compilers.versions(target.chip.kind)
    config = dataclasses.replace(config, features=coreset.features)
    sizes, validation = dry_run.measured(config)
    sizes = sizes._replace(s=coreset.labels.shape[0] * coreset.factor)
    rows: Rows = []
    for protocol in protocols:
        if protocol in KERNELS:
            raise UserError(
                f"{protocol} is computed in tiles, one after the other: there is no "
                "program to forecast"
            )
        if protocol == "krr":
            asked = request(target, "evaluate", config, sizes, validation)
            found = compile_programs(target, asked)
            rows += [_heading(target), *_compiled(target, found)]
        else:
            recipe = presets.for_model(config, protocol, **changes)
            count = _clips(coreset, sizes)
            more = _network_rows("train", recipe, target, sizes, validation, count)
            rows += more
    return rows


def _network_rows(
    command: str,
    config: Config,
    target: Target,
    sizes: Sizes,
    validation: int,
    *counts: int,
) -> Rows:
    asked = request(target, command, config, sizes, validation, *counts)
    found = compile_programs(target, asked)
    training = config.training
    rows = [
        _heading(target),
        ("network", f"{config.model.name}, {training.precision}, {training.seeds} of "
         f"them on {counts[0]:,} spectrograms of {sizes.f} x {sizes.t}"),
    ]  # fmt: skip
    return rows + _compiled(target, found)


def _clips(learns_from: Subset | Coreset, sizes: Sizes) -> int:
    """Spectrograms of a training set."""
    if isinstance(learns_from, Coreset):
        if learns_from.teacher_labels is not None:
            return learns_from.teacher_labels.shape[0]
        return learns_from.labels.shape[0] * learns_from.factor
    if learns_from.per_class:
        return learns_from.per_class * sizes.c
    train = sizes.train or sizes.b
    return len(learns_from.indices) or max(1, round(learns_from.fraction * train))


def _heading(target: Target) -> tuple[str, str]:
    chip = target.chip
    found = compilers.versions(chip.kind).items()
    chips = f"{target.size} x {target.name}" if target.size > 1 else target.name
    by = ", ".join(f"{name} {version}" for name, version in found)
    return "target", f"{chips} of {chip.memory / 1e9:,.1f} GB, compiled by {by}"


def _compiled(
    target: Target, found: list[dict[str, Any]], predicted: Cost | None = None
) -> Rows:
    """Rows of what the compiler says of the programs, the first of which is a step."""
    rows: Rows = [("programs", "; ".join(map(_program, found)))]
    rows += [(f"no {one['program']}", one["error"]) for one in found if "error" in one]
    first = found[0]
    if "error" in first:
        return rows
    most = max(one["memory"] for one in found if "error" not in one)
    room = target.chip.memory
    fits = "" if most <= room else "; that is MORE than there is"
    step = f"{_size(first['step_bytes'])} per step"
    if predicted is not None:
        step += f" (predicted {_size(predicted.step_bytes)})"
    rows.append(
        ("memory", f"{step}, {_size(most)} with its data, of "
         f"{room / 1e9:,.1f} GB per chip{fits}"),
    )  # fmt: skip
    each = {key: first[key] / first["steps"] for key in ("flops", "bytes")}
    exchanged = [
        f"{count / first['steps']:g} {name} of {_size(size / first['steps'])}"
        for name, (count, size) in sorted(first["collectives"].items())
    ]
    together = ", ".join(exchanged) or "none"
    if predicted is not None and exchanged:
        together += f" (predicted {_size(predicted.exchanged_bytes)})"
    arithmetic, traffic = bound(target, first)
    longer = "memory" if traffic > arithmetic else "arithmetic"
    peak = target.chip.peak[first["precision"]]
    return [
        *rows,
        ("collectives", f"{together} per step and chip"),
        ("arithmetic", f"{each['flops'] / 1e9:,.1f} GFLOP per step and chip: "
         f"{_time(arithmetic)} at {peak / 1e12:,.1f} TFLOP/s "
         f"({first['precision']})"),
        ("bytes moved", f"{_size(each['bytes'])} per step and chip: "
         f"{_time(traffic)} at {target.chip.bandwidth / 1e9:,.0f} GB/s"),
        ("lower bound", f"{_time(max(arithmetic, traffic))} per step, by {longer}"),
    ]  # fmt: skip


def bound(target: Target, found: dict[str, Any]) -> tuple[float, float]:
    """Least seconds of a step by arithmetic and by the memory's bandwidth.

    Args:
      target: of which each chip has its share of the step.
      found: the compiler's account of the program.
    """
    chip, steps = target.chip, found["steps"]
    arithmetic = found["flops"] / steps / chip.peak[found["precision"]]
    return arithmetic, found["bytes"] / steps / chip.bandwidth


def _program(found: dict[str, Any]) -> str:
    if "error" in found:
        return f"{found['program']} failed"
    return f"{found['program']} in {found['seconds']:.0f} s"


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:,.2f} ms" if seconds < 1 else f"{seconds:,.2f} s"


def _size(count: int | float) -> str:
    """Bytes in words, with three digits or so."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:,.2f} {name}"
    return f"{count / 1e3:,.1f} kB"
