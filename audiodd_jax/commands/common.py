"""Helpers of all commands: starting JAX, folders, interruption, printing."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from audiodd_jax.data import datasets
from audiodd_jax.errors import UserError


def start(values: Any, *, float64: bool = False) -> None:
    """Starts JAX with the devices and processes of the flags.

    Args:
      values: of the flags.
      float64: enable 64-bit types.

    Raises:
      UserError: devices or processes that do not exist.
    """
    import jax

    count = values.num_devices
    if count is not None and count < 1:
        raise UserError(f"--num_devices must be at least 1, not {count}")
    # Only distillation is a run of several processes.
    joins = "num_processes" in values
    if count:
        # On CPU, that many devices are simulated.
        own = max(1, count // ((joins and values.num_processes) or 1))
        # Too late in a program that has used JAX already.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", own)
    # Numbers must not depend on the environment's settings of JAX.
    from audiodd_jax.runtime import devices, environment, multiprocess, supervisor

    environment.set_numerics(jax_enable_x64=float64)
    keep_compiled(cache_dir(values))

    supervised = not supervisor.is_needed()
    supervisor.follow()
    if joins:
        several = values.coordinator_address or multiprocess.found_by_jax()
        if several and not supervised:
            raise SystemExit(supervisor.supervise(sys.argv[1:]))
        address = values.coordinator_address
        multiprocess.join(address, values.num_processes, values.process_id)
    _check_devices()
    if count:
        devices.limit(count)
    if not multiprocess.is_process_zero():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the end)


def _check_devices() -> None:
    """Starts JAX's backend.

    Raises:
      UserError: it cannot start on the platforms of ``JAX_PLATFORMS``.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        reason = (str(error).splitlines() or ["no such device"])[0]
        raise UserError(
            f"JAX cannot start on JAX_PLATFORMS={platforms!r} ({reason}); set "
            "JAX_PLATFORMS=cpu, or install the jax build of the accelerator"
        ) from error


def keep_compiled(cache_dir: Path | None) -> None:
    """Enables JAX's persistent compilation cache, so that a second run starts fast.

    In a folder per processor type, since different machines may share the cache.
    """
    import jax

    from audiodd_jax.runtime.files import is_writable

    if not jax.config.jax_compilation_cache_dir:
        place = (cache_dir or datasets.cache_root()) / "compiled" / _processor()
        if not is_writable(place):
            return
        jax.config.update("jax_compilation_cache_dir", str(place))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _processor(file: Path = Path("/proc/cpuinfo")) -> str:
    """Digest of the processor's instruction sets."""
    import hashlib
    import platform

    text = file.read_text() if file.exists() else platform.processor()
    named = ("flags", "features")  # on x86 and on ARM
    lines = text.splitlines()
    flags = next((line for line in lines if line.lower().startswith(named)), text)
    return hashlib.sha256(f"{platform.machine()} {flags}".encode()).hexdigest()[:12]


def cache_dir(values: Any) -> Path | None:
    """The folder of ``--cache_dir``, or None."""
    return Path(values.cache_dir).expanduser() if values.cache_dir else None


def percent(share: float) -> str:
    """A fraction as a percentage."""
    return f"{100 * share:.2f} %"


@contextlib.contextmanager
def resumable(workdir: Path) -> Iterator[None]:
    """Exits with a signal's code, saying how to resume, if one arrived."""
    from audiodd_jax.runtime.signals import Interrupted

    try:
        yield
    except Interrupted as stop:
        print(f"{stop}; the same command resumes {workdir}", file=sys.stderr)
        raise SystemExit(128 + stop.signum) from None


def names(text: str) -> list[str]:
    """The names in a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def table(rows: Sequence[tuple[str, str]]) -> None:
    """Prints rows of name and value."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}s}  {value}")


def target(values: Any) -> Any:
    """The accelerator of ``--target``, or None.

    Raises:
      UserError: there is none of the name, or ``--dry_run`` is missing or needs it.
    """
    from audiodd_jax.forecast import targets

    if not values.target:
        return None
    if not values.dry_run:
        raise UserError("--target compiles and does not run: add --dry_run")
    return targets.parse(values.target)


def needs_target(values: Any, command: str) -> None:
    """Checks that a dry run of a command that runs no forecast of its own has a target.

    Raises:
      UserError: it has none.
    """
    if values.dry_run and not values.target:
        raise UserError(
            f"a dry run of {command} asks an accelerator's compiler: add --target, "
            "as in --target=v5e"
        )
