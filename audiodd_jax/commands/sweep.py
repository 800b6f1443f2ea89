"""``audiodd sweep``: runs the list or grid of a file."""

import sys
from pathlib import Path

from audiodd_jax.command_line import CommandLine, table
from audiodd_jax.config.user_paths import with_urls
from audiodd_jax.errors import UserError


def run(line: CommandLine) -> None:
    """Runs the list or grid of a file, on this machine or on a Ray cluster."""
    values, (file,) = line.flags, line.arguments
    for name, least in (("jobs", 0), ("retries", 0), ("devices_per_run", 1)):
        if values[name].value < least:
            raise UserError(f"--{name} must be at least {least}")
    from audiodd_jax.runtime import mirror
    from audiodd_jax.sweep import plan

    mirror.fetch(Path(file))
    plans = plan.read(Path(file))
    workdir = Path(values.workdir or Path("runs") / Path(file).stem).absolute()
    if values.dry_run:
        table([(one.name, f"{one.command} {' '.join(one.flags)}") for one in plans])
        return
    from audiodd_jax.report import tables
    from audiodd_jax.runtime.signals import deferred_signals
    from audiodd_jax.sweep import local, on_ray, status

    with status.held(workdir):
        unfinished = status.queue(plans, workdir)
        sweep = status.Sweep(workdir, Path.cwd(), values.retries)
        board = status.shown(plans, workdir)
        with board as update, deferred_signals() as stop_signal:
            if unfinished and values.ray:
                wanted = (values.cpus_per_run, values.gpus_per_run, values.tpus_per_run)
                resources = on_ray.Resources(*wanted)
                on_ray.run(
                    unfinished, sweep, values.ray, resources, update, stop_signal
                )
            elif unfinished:
                jobs, per_run = values.jobs, values.devices_per_run
                slots = local.slots(*local.devices(), jobs, per_run)
                local.run(unfinished, sweep, slots, update, stop_signal)
            signum = stop_signal()
    states = status.read(plans, workdir)
    print(tables.markdown(status.table(states, workdir).without_empty_columns()))
    print(f"\nnext: audiodd report {with_urls(workdir)}")
    if signum:
        resumed = with_urls(workdir)
        print(f"stopped; the same command resumes {resumed}", file=sys.stderr)
        raise SystemExit(128 + signum)
    bad = [state.name for state in states if state.what != "finished"]
    if bad:
        raise UserError(
            f"{len(bad)} of {len(plans)} runs have no result ({'; '.join(bad[:3])}"
            f"{'; ...' * (len(bad) > 3)}); their logs are in {workdir / 'logs'}, and "
            "the same command retries them"
        )
