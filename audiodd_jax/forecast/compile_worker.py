"""Compiles a command's programs for a target; run by ``python -m``.

Reads a request of ``estimates.compile_programs`` from standard input, and answers a
line of JSON for each program (``compilers.answer``).
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from audiodd_jax.distillation import cost, memory_plan
from audiodd_jax.errors import UserError
from audiodd_jax.forecast import compilers, hlo, programs, targets
from audiodd_jax.forecast.programs import Program
from audiodd_jax.forecast.targets import Target
from audiodd_jax.forecast.workload import Workload
from audiodd_jax.kernels.random_kernels import Plan
from audiodd_jax.runtime import environment, supervisor
from audiodd_jax.runtime.devices import grid_of


def main() -> None:
    """Answers the request on standard input."""
    supervisor.follow()
    request = json.load(sys.stdin)
    target = targets.parse(request["target"])
    work = Workload.from_json(request["work"])
    is_wide = work.config.rfad.kernel_precision == "float64"
    environment.set_numerics(jax_enable_x64=is_wide)
    try:
        chips = compilers.devices_of(target)
    except UserError as error:
        compilers.answer({"error": str(error)})
        return
    problem = cost.problem_of(work.config, work.sizes)

    def plan_for(mesh: Mesh) -> Plan:
        chip = target.chip
        return memory_plan.choose(problem, grid_of(mesh), chip.kind, chip.memory)

    makers = programs.of_command(request["command"], work, chips, plan_for)
    names = request["only"] or list(makers)
    compilers.answer({"programs": names})
    for name in names[request["skip"] :]:
        compilers.answer(compiled(makers[name], target))


def compiled(make: Callable[[], Program], target: Target) -> dict[str, Any]:
    """Returns the compiler's account of the program that ``make`` returns, as JSON."""
    began = time.perf_counter()
    try:
        program = make()
        executable = program.lower().compile()
    except UserError as error:
        return {"error": str(error)}
    except Exception as error:
        return {"error": f"the {target.name} compiler: {compilers.first_line(error)}"}
    seconds = time.perf_counter() - began
    memory = executable.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    held -= memory.alias_size_in_bytes
    return {
        "seconds": seconds,
        "steps": program.steps,
        "precision": program.precision,
        "step_bytes": memory.temp_size_in_bytes,
        "memory": held + memory.temp_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        **hlo.account(executable.as_text())._asdict(),
    }


if __name__ == "__main__":
    main()
