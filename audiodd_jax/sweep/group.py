"""Runs of a sweep that are one program; see ``distillation.together``."""

import json
from collections.abc import Sequence
from pathlib import Path

from audiodd_jax.sweep import plan as plan_lib
from audiodd_jax.sweep.plan import Planned

# Of an error's line: whose it is.
FAILED = "audiodd: error: run {}: "
# Flags of ``distill`` that make a run one of its own.
_OWN = ("num_devices", "dry_run", "coordinator_address", "num_processes")


def units(plans: Sequence[Planned], together: int) -> list[tuple[Planned, ...]]:
    """The runs in the order of their first ones, up to ``together`` of equal shape.

    Args:
      plans: of a sweep.
      together: runs of one program at most.
    """
    if together < 2:
        return [(plan,) for plan in plans]
    from audiodd_jax.distillation import together as together_lib

    open_ones: dict[str, list[Planned]] = {}
    found: list[list[Planned]] = []
    for plan in plans:
        values, config, _ = plan_lib.parsed(plan)
        alone = (
            plan.command != "distill"
            or config.method != together_lib.METHOD
            or values.fold == "all"
            or any(values[name].present for name in _OWN)
        )
        if alone:
            found.append([plan])
            continue
        shape = json.dumps([together_lib.common(config), values.cache_dir])
        if shape not in open_ones or len(open_ones[shape]) == together:
            open_ones[shape] = []
            found.append(open_ones[shape])
        open_ones[shape].append(plan)
    return [tuple(unit) for unit in found]


def write(plans: Sequence[Planned], workdir: Path, path: Path) -> None:
    """Writes the file that ``audiodd_jax.cli_group`` reads."""
    rows = [[*plan, str(workdir / plan.name)] for plan in plans]
    path.write_text(json.dumps(rows))
