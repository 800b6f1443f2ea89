"""Compiles a command's programs for a target; run by ``python -m``.

Reads a request from standard input (``target_forecast.request``), and answers a line of
JSON for each program (``runtime.compilers.answer``).
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from audiodd_jax.config import Config, fields
from audiodd_jax.distillation import memory_plan
from audiodd_jax.distillation.memory_plan import Plan, Sizes
from audiodd_jax.errors import UserError
from audiodd_jax.forecast import compilers, hlo, targets
from audiodd_jax.forecast import programs as device_programs
from audiodd_jax.forecast.programs import Program, Workload
from audiodd_jax.forecast.targets import Target
from audiodd_jax.runtime import environment, supervisor
from audiodd_jax.runtime.devices import grid_of


def main() -> None:
    """Answers the request on standard input."""
    supervisor.follow()
    request = json.load(sys.stdin)
    target = targets.parse(request["target"])
    config = fields.from_dict(request["config"])
    is_wide = config.rfad.kernel_precision == "float64"
    environment.set_numerics(jax_enable_x64=is_wide)
    try:
        chips = compilers.devices_of(target)
    except UserError as error:
        compilers.answer({"error": str(error)})
        return
    work = Workload(config, Sizes(*request["sizes"]), *request["counts"])
    plan = lambda mesh: plan_for(target, config, work.sizes, mesh)
    makers = device_programs.of_command(request["command"], work, chips, plan)
    if request["only"]:
        makers = {name: makers[name] for name in request["only"]}
    compilers.answer({"programs": list(makers)})
    for number, (name, make) in enumerate(makers.items()):
        if number >= request["skip"]:
            saved = Path(request["save"]) / f"{name}.txt" if request["save"] else None
            compilers.answer(compiled(make, target, saved))


def plan_for(target: Target, config: Config, sizes: Sizes, mesh: Mesh) -> Plan:
    """The plan that a run on the target chooses."""
    chip = target.chip
    return memory_plan.choose(
        config, sizes, grid_of(mesh), platform=chip.kind, memory=chip.memory
    )


def compiled(make: Any, target: Target, saved: Path | None = None) -> dict[str, Any]:
    """What the compiler says of a program: JSON.

    Args:
      make: returns the program.
      target: that it is compiled for.
      saved: file for its text.
    """
    began = time.perf_counter()
    try:
        program: Program = make()
        found = program.lower().compile()
    except Exception as error:
        if isinstance(error, UserError):
            return {"error": str(error)}
        return {"error": f"the {target.name} compiler: {compilers.first_line(error)}"}
    seconds = time.perf_counter() - began
    text = found.as_text()
    if saved:
        saved.write_text(text)
    memory = found.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    held -= memory.alias_size_in_bytes
    return {
        "seconds": seconds,
        "steps": program.steps,
        "precision": program.precision,
        "step_bytes": memory.temp_size_in_bytes,
        "memory": held + memory.temp_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        **hlo.account(text)._asdict(),
    }


if __name__ == "__main__":
    main()
