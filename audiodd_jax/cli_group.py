"""The process of a sweep's runs that are one program.

    python -m audiodd_jax.cli_group FILE

``FILE`` lists the runs and their directories, as ``sweep.group`` writes it.
"""

import json
import sys
from pathlib import Path

from audiodd_jax import cli, cli_support
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.sweep import group
from audiodd_jax.sweep import plan as plan_lib
from audiodd_jax.sweep.plan import Planned


def main(path: Path) -> int:
    """Does the runs that a file lists; the code to exit with.

    Raises:
      UserError: runs that cannot be one program, or bad settings or data.
      SystemExit: a signal came; the states of all are saved.
    """
    from audiodd_jax import api

    rows = json.loads(path.read_text())
    plans = [Planned(name, command, tuple(flags)) for name, command, flags, _ in rows]
    parsed = [plan_lib.parsed(plan) for plan in plans]
    values, config, _ = parsed[0]
    cli_support.start(values, config)
    with cli_support.continued(path.parent.parent):
        found = api.distill_together(
            [one.config for one in parsed],
            [row[-1] for row in rows],
            cli_support.cache_dir(values),
        )
    failed = 0
    for plan, run in zip(plans, found, strict=True):
        if isinstance(run, UserError):
            print(f"{group.FAILED.format(plan.name)}{run}", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    cli.explained(lambda: sys.exit(main(Path(sys.argv[1]))))
