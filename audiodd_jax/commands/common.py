"""Helpers of all commands: devices, the compilation cache, interruption."""

import contextlib
import hashlib
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
from absl import flags as absl_flags

from audiodd_jax.config import DataConfig
from audiodd_jax.config.user_paths import with_urls
from audiodd_jax.data import datasets
from audiodd_jax.errors import UserError
from audiodd_jax.forecast import targets
from audiodd_jax.forecast.targets import Target
from audiodd_jax.runtime import devices, multiprocess, signals
from audiodd_jax.runtime.files import is_writable
from audiodd_jax.runtime.signals import Interrupted


def start(flags: absl_flags.FlagValues, data: DataConfig) -> None:
    """Starts JAX with the devices and processes of the flags, which must exist."""
    count = flags.num_devices
    if count is not None and count < 1:
        raise UserError(f"--num_devices must be at least 1, not {count}")
    # Only distillation runs in several processes.
    joins = "num_processes" in flags
    if count:
        # On CPU, that many devices are simulated.
        per_process = max(1, count // ((joins and flags.num_processes) or 1))
        # Too late in a program that has used JAX already.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", per_process)
    keep_compiled(data)
    signals.follow()
    if joins:
        address = flags.coordinator_address
        is_one_of_several = address or multiprocess.in_cluster()
        if is_one_of_several and not signals.is_supervised():
            raise SystemExit(signals.supervise(sys.argv[1:]))
        multiprocess.join(address, flags.num_processes, flags.process_id)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        reason = (str(error).splitlines() or ["no such device"])[0]
        raise UserError(
            f"JAX cannot start on JAX_PLATFORMS={platforms!r} ({reason}); set "
            "JAX_PLATFORMS=cpu, or install the jax build of the accelerator"
        ) from error
    if count:
        devices.limit(count)
    if not multiprocess.is_process_zero():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the end)


def keep_compiled(data: DataConfig | None = None) -> None:
    """Enables JAX's persistent compilation cache: a second run compiles nothing.

    It keeps the small programs too, of which there are forty. It has a folder per
    processor type, since different machines may share the cache.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    folder = datasets.cache_root(data) / "compiled" / _processor()
    if is_writable(folder):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _processor(file: Path = Path("/proc/cpuinfo")) -> str:
    """Returns a digest of the processor's instruction sets."""
    text = file.read_text() if file.exists() else platform.processor()
    prefixes = ("flags", "features")  # on x86 and on ARM
    lines = text.splitlines()
    flags = next((line for line in lines if line.lower().startswith(prefixes)), text)
    return hashlib.sha256(f"{platform.machine()} {flags}".encode()).hexdigest()[:12]


def target(flags: absl_flags.FlagValues, command: str) -> Target | None:
    """Returns the accelerator of ``--target``, if any.

    Only distill has a dry run without it, and no command has it without a dry run.
    """
    if not flags.target:
        if flags.dry_run and command != "distill":
            raise UserError(
                f"a dry run of {command} uses an accelerator's compiler: add --target, "
                "as in --target=v5e"
            )
        return None
    if not flags.dry_run:
        raise UserError("--target compiles and does not run: add --dry_run")
    return targets.parse(flags.target)


@contextlib.contextmanager
def resumable(workdir: Path, *, is_run: bool = False) -> Iterator[None]:
    """Exits with a signal's code, saying how to resume ``workdir``, if one arrived.

    Also announces a single run (``is_run``) that was finished before.
    """
    is_finished = is_run and (workdir / "result.json").exists()
    try:
        yield
    except Interrupted as stop:
        resumed = with_urls(workdir)
        print(f"{stop}; the same command resumes {resumed}", file=sys.stderr)
        raise SystemExit(128 + stop.signum) from None
    if is_finished:
        print(f"{with_urls(workdir)} holds this run, finished already:")
