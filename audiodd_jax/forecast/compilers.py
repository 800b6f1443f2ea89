"""Runs accelerators' compilers on machines without an accelerator.

libtpu compiles for TPUs, JAX's CUDA plugin for NVIDIA GPUs; neither needs a device or a
driver. JAX initialises both packages wherever it finds them, and without a device every
other program would print a stack trace and errors. They are therefore installed in a
separate folder, which is on the path of the compiling process only. An environment that
has them anyway, as on an accelerator, uses its own.

Compilation runs in a child process: if a compiler crashes, hangs or refuses, the user
sees one sentence.
"""

import contextlib
import importlib.metadata
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement

from audiodd_jax.errors import UserError
from audiodd_jax.forecast.targets import Target
from audiodd_jax.runtime import supervisor

# Environment variable of the compilers' folder.
FOLDER = "AUDIODD_COMPILERS"
# Before each line of the child's answer: compilers print to the same output.
_MARK = "audiodd-compiled "
KINDS = ("tpu", "gpu")


class Gpu(NamedTuple):
    """The properties of a GPU that XLA needs, from the architecture's manual.

    Attributes:
      capability: compute capability.
      processors: number of streaming multiprocessors.
      lanes: float32 units per multiprocessor.
      shared: KiB of shared memory per multiprocessor; a block has one less.
      cache: MB of second-level cache.
      gigahertz: boost clock.
    """

    capability: tuple[int, int]
    processors: int
    lanes: int
    shared: int
    cache: int
    gigahertz: float


_GPUS = {
    "a100": Gpu((8, 0), 108, 64, 164, 40, 1.41),
    "h100": Gpu((9, 0), 132, 128, 228, 50, 1.98),
    "h200": Gpu((9, 0), 132, 128, 228, 50, 1.98),
}


def folder() -> Path:
    """Returns the compilers' folder: one per environment, since versions must match."""
    return Path(os.environ.get(FOLDER) or Path(sys.prefix) / "audiodd-compilers")


def requirements(kind: str) -> list[str]:
    """Returns the packages that the installed jax needs to compile for a kind."""
    if kind == "gpu":
        # Both in jaxlib's version, or their interfaces differ.
        version = importlib.metadata.version("jaxlib")
        return [f"jax-cuda12-{part}=={version}" for part in ("plugin", "pjrt")]
    listed = map(Requirement, importlib.metadata.requires("jax") or ())
    return [
        f"{each.name}{each.specifier}"
        for each in listed
        if each.name == "libtpu" and each.marker.evaluate({"extra": "tpu"})
    ]


def command(*kinds: str) -> str:
    """Returns the command that installs compilers into their folder."""
    packages = " ".join(f"'{name}'" for kind in kinds for name in requirements(kind))
    return (
        f"{sys.executable} -m pip install --no-deps --upgrade --target {folder()} "
        f"{packages}"
    )


def install(*kinds: str) -> None:
    """Installs the compilers of these kinds that are missing.

    Raises:
      subprocess.CalledProcessError: they are not available.
    """
    for kind in kinds:
        try:
            versions(kind)
        except UserError:
            subprocess.run([*shlex.split(command(kind)), "--quiet"], check=True)


def versions(kind: str) -> dict[str, str]:
    """Returns the versions of the packages that compile for ``tpu`` or ``gpu``.

    Raises:
      UserError: one is not installed, or its version does not match jax.
    """
    installed = {}
    for required in map(Requirement, requirements(kind)):
        path = [str(folder()), *sys.path]
        found = importlib.metadata.distributions(name=required.name, path=path)
        if (package := next(iter(found), None)) is None:
            raise UserError(
                f"compiling for a {kind.upper()} needs {required.name}, which is not "
                f"installed: {command(kind)}"
            )
        if not required.specifier.contains(package.version, prereleases=True):
            raise UserError(
                f"{required.name} {package.version} does not fit jax "
                f"{importlib.metadata.version('jax')}, "
                f"which needs {required}: {command(kind)}"
            )
        installed[required.name] = package.version
    return installed


def environment(target: Target) -> dict[str, str]:
    """Returns the environment variables of a process that compiles for a target."""
    path = [*sys.path, os.environ.get("PYTHONPATH", "")]
    if target.chip.kind == "gpu":
        path = [str(folder()), *path]
    variables = {
        **os.environ,
        **supervisor.child_variables(),
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        # The process itself runs on the CPU.
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    if target.chip.kind == "gpu":
        return variables
    library = folder() / "libtpu" / "libtpu.so"
    if library.exists():
        variables["TPU_LIBRARY_PATH"] = str(library)
    return {
        **variables,
        "TPU_SKIP_MDS_QUERY": "1",
        # The process does not occupy a device, so several may run.
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "TPU_MIN_LOG_LEVEL": "3",
        "TPU_STDERR_LOG_LEVEL": "3",
    }


def devices_of(target: Target) -> list[Any]:
    """Returns JAX devices that programs can be compiled for, but not run on.

    The process must have the variables of ``environment``.

    Raises:
      UserError: the compiler does not know the topology.
    """
    from jax.experimental import topologies

    sides = "x".join(map(str, target.shape))
    if target.chip.kind == "gpu":
        hosts = -(-target.size // 8)
        options = {
            "platform": "cuda",
            "topology_name": "",
            "target_config": _description(target),
            "topology": f"1x{hosts}x{target.size // hosts}",
        }
    else:
        options = {"platform": "tpu", "topology_name": f"{target.name}:{sides}"}
        if target.size == 1:
            options["chips_per_host_bounds"] = (1, 1, 1)
        if target.chip.axes == 3:
            # Both cores of a chip as one device.
            options["chip_config_name"] = "megacore"
    try:
        return list(topologies.get_topology_desc(**options).devices)
    except Exception as error:
        raise UserError(
            f"the compiler of {target.name} has no topology {sides}: "
            f"{first_line(error)}"
        ) from error


def _description(target: Target) -> str:
    """Returns XLA's text description of a GPU."""
    gpu, chip = _GPUS[target.name], target.chip
    info = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 48 << 10,
        "shared_memory_per_core": gpu.shared << 10,
        "shared_memory_per_block_optin": (gpu.shared - 1) << 10,
        "threads_per_core_limit": 2048,
        "core_count": gpu.processors,
        "fpus_per_core": gpu.lanes,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "memory_bandwidth": int(chip.bandwidth),
        "l2_cache_size": gpu.cache << 20,
        "clock_rate_ghz": gpu.gigahertz,
        "device_memory_size": chip.memory,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
    }
    lines = [f"  {name}: {value}" for name, value in info.items()]
    major, minor = gpu.capability
    lines.append(f"  cuda_compute_capability {{ major: {major} minor: {minor} }}")
    return "\n".join(
        [
            "gpu_device_info {",
            *lines,
            "}",
            'platform_name: "CUDA"',
            "dnn_version_info { major: 9 minor: 8 patch: 0 }",
            f'device_description_str: "NVIDIA {target.name.upper()}"',
        ]
    )


def answer(values: dict[str, Any]) -> None:
    """Prints a line of the child's answer."""
    print(_MARK + json.dumps(values), flush=True)


def ask(
    target: Target, request: dict[str, Any], module: str, seconds: float
) -> list[dict[str, Any]]:
    """Compiles programs in a child process, and returns its answers.

    If a program crashes the compiler, its answer has an ``error``, and another process
    compiles the remaining programs.

    Args:
      target: accelerators to compile for.
      request: JSON for the module; ``skip`` is added, the number of programs to skip.
      module: run by ``python -m``; reads the request and ``answer``s with the names of
        its programs, then once per program.
      seconds: time limit of a process.

    Raises:
      UserError: the compiler is not installed, does not know the target, or fails
        before the first program.
    """
    versions(target.chip.kind)
    answers: list[dict[str, Any]] = []
    names: list[str] | None = None
    while names is None or len(answers) < len(names):
        skipping = {**request, "skip": len(answers)}
        lines, problem = _run(target, skipping, module, seconds)
        if not lines or "programs" not in lines[0]:
            refusal = lines[0].get("error") if lines else None
            raise UserError(refusal or f"the {target.name} compiler {problem}")
        names = lines[0]["programs"]
        answers += lines[1:]
        if len(answers) < len(names):
            problem = problem or "printed no answer"
            answers.append({"error": f"the {target.name} compiler {problem}"})
    return [
        {"program": name, **values} for name, values in zip(names, answers, strict=True)
    ]


def _run(
    target: Target, request: dict[str, Any], module: str, seconds: float
) -> tuple[list[dict[str, Any]], str]:
    """Returns the lines that a process answers, and why it failed, if it did."""
    problem = ""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        env=environment(target),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        out, errors = process.communicate(json.dumps(request), timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, errors = process.communicate()
        problem = f"was stopped after {seconds:,.0f} s"
    except BaseException:
        process.kill()
        process.wait()
        raise
    if not problem and process.returncode:
        problem = _end(process.returncode, errors)
    lines = []
    for line in out.splitlines():
        # The last one may be cut off.
        with contextlib.suppress(json.JSONDecodeError):
            if line.startswith(_MARK):
                lines.append(json.loads(line.removeprefix(_MARK)))
    return lines, problem


def _end(code: int, errors: str) -> str:
    """Returns why a process ended, in words."""
    if code < 0:
        return f"crashed ({signal.Signals(-code).name})"
    last = [line.strip() for line in errors.splitlines() if line.strip()][-1:]
    return f"failed: {last[0][:200]}" if last else f"failed with code {code}"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error, short enough for a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


if __name__ == "__main__":
    install(*(sys.argv[1:] or KINDS))
