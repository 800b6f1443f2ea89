"""Accelerators' compilers on machines without an accelerator.

libtpu compiles for TPUs, JAX's CUDA plugin for NVIDIA GPUs; neither needs a device
or a driver. Both are packages that JAX initialises wherever it finds them, and without
a device every other program prints a stack trace and errors. So they lie in a folder of
their own, which only the process that compiles has on its path; where an environment
has them anyway, as on an accelerator, those are used.

That process is another one than the user's: a compiler that crashes, hangs or refuses
costs one sentence.
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

# Names the folder of the compilers.
FOLDER = "AUDIODD_COMPILERS"
# Before each line of the child's answer: compilers print to the same output.
_MARK = "audiodd-compiled "
# Extras of jax that ask for the compilers, and the packages of them that compile.
_EXTRAS = {"tpu": "tpu", "gpu": "cuda12-local"}
_PACKAGES = {"tpu": ("libtpu",), "gpu": ("jax-cuda12-plugin", "jax-cuda12-pjrt")}


class Gpu(NamedTuple):
    """What XLA must know of a GPU that is not there, by its architecture's manual.

    Attributes:
      capability: compute capability.
      processors: streaming multiprocessors.
      lanes: float32 units of each.
      shared: KiB of shared memory of each; a block has one less.
      cache: MB of the second level.
      gigahertz: of the boost clock.
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
    """Where the compilers lie: one folder per environment, since versions must fit."""
    return Path(os.environ.get(FOLDER) or Path(sys.prefix) / "audiodd-compilers")


def requirements(kind: str) -> list[str]:
    """The packages that compile for ``tpu`` or ``gpu``, as the installed jax asks."""
    found = []
    for text in importlib.metadata.requires("jax") or ():
        asked = Requirement(text)
        is_asked = asked.marker and asked.marker.evaluate({"extra": _EXTRAS[kind]})
        if is_asked and asked.name in _PACKAGES[kind]:
            found.append(f"{asked.name}{asked.specifier}")
    if kind == "gpu":
        # One version of both, or their interfaces differ.
        version = importlib.metadata.version("jaxlib")
        return [f"{name}=={version}" for name in _PACKAGES[kind]]
    return found


def command(*kinds: str) -> str:
    """The command that installs compilers where only compilations see them."""
    packages = " ".join(f"'{name}'" for kind in kinds for name in requirements(kind))
    return (
        f"{sys.executable} -m pip install --no-deps --upgrade --target {folder()} "
        f"{packages}"
    )


def install(*kinds: str) -> None:
    """Installs the compilers of these kinds that are missing.

    Raises:
      subprocess.CalledProcessError: they are not to be had.
    """
    for kind in kinds:
        try:
            versions(kind)
        except UserError:
            subprocess.run([*shlex.split(command(kind)), "--quiet"], check=True)


def versions(kind: str) -> dict[str, str]:
    """Versions of the packages that compile for ``tpu`` or ``gpu``.

    Raises:
      UserError: one is not installed, or is of a version that jax does not fit.
    """
    found = {}
    for asked in map(Requirement, requirements(kind)):
        places = [str(folder()), *sys.path]
        those = importlib.metadata.distributions(name=asked.name, path=places)
        if (installed := next(iter(those), None)) is None:
            raise UserError(
                f"compiling for a {kind.upper()} needs {asked.name}, which is not "
                f"installed: {command(kind)}"
            )
        if not asked.specifier.contains(installed.version, prereleases=True):
            raise UserError(
                f"{asked.name} {installed.version} does not fit jax "
                f"{importlib.metadata.version('jax')}, "
                f"which needs {asked}: {command(kind)}"
            )
        found[asked.name] = installed.version
    return found


def environment(target: Target) -> dict[str, str]:
    """Variables of a process that compiles for a target."""
    places = [*sys.path, os.environ.get("PYTHONPATH", "")]
    if target.chip.kind == "gpu":
        places = [str(folder()), *places]
    found = {
        **os.environ,
        **supervisor.child_variables(),
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        # The process itself runs on the CPU.
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    if target.chip.kind == "gpu":
        return found
    own = folder() / "libtpu" / "libtpu.so"
    if own.exists():
        found["TPU_LIBRARY_PATH"] = str(own)
    quiet = {
        "TPU_SKIP_MDS_QUERY": "1",
        # It has no device that only one process may have.
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "TPU_MIN_LOG_LEVEL": "3",
        "TPU_STDERR_LOG_LEVEL": "3",
    }
    return {**found, **quiet}


def devices_of(target: Target) -> list[Any]:
    """Devices of JAX that can be compiled for, and not computed on.

    Only in a process with ``environment``.

    Raises:
      UserError: the compiler knows no such topology.
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
    """A GPU in the text form of XLA's description of a device."""
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
    """What a process that compiles programs answers of each.

    A program that the compiler does not survive has an ``error``, and another process
    takes those after it.

    Args:
      target: to compile for.
      request: JSON of the module; ``skip``, the programs to pass by, is added.
      module: run by ``python -m``; reads the request and ``answer``s: the names of its
        programs, then each.
      seconds: that a process may take.

    Raises:
      UserError: the compiler is not installed, knows no such target, or fails before
        the first program.
    """
    versions(target.chip.kind)
    found: list[dict[str, Any]] = []
    names: list[str] | None = None
    while names is None or len(found) < len(names):
        options = {**request, "skip": len(found)}
        lines, problem = _run(target, options, module, seconds)
        if not lines or "programs" not in lines[0]:
            said = lines[0].get("error") if lines else None
            raise UserError(said or f"the {target.name} compiler {problem}")
        names = lines[0]["programs"]
        found += lines[1:]
        if len(found) < len(names):
            problem = problem or "said nothing"
            found.append({"error": f"the {target.name} compiler {problem}"})
    return [
        {"program": name, **values} for name, values in zip(names, found, strict=True)
    ]


def _run(
    target: Target, request: dict[str, Any], module: str, seconds: float
) -> tuple[list[dict[str, Any]], str]:
    """Lines that a process answers, and what is wrong with its end, if anything."""
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
        out, said = process.communicate(json.dumps(request), timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, said = process.communicate()
        problem = f"was stopped after {seconds:,.0f} s"
    except BaseException:
        process.kill()
        process.wait()
        raise
    if not problem and process.returncode:
        problem = _end(process.returncode, said)
    marked = [line for line in out.splitlines() if line.startswith(_MARK)]
    lines = []
    for line in marked:
        # The last one may be cut off.
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(line.removeprefix(_MARK)))
    return lines, problem


def _end(code: int, said: str) -> str:
    """Why a process ended, in words."""
    if code < 0:
        return f"crashed ({signal.Signals(-code).name})"
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
    return f"failed: {last.strip()[:200]}" if last else f"failed with code {code}"


def first_line(error: BaseException) -> str:
    """The first line of an error, short enough for a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


if __name__ == "__main__":
    install(*(sys.argv[1:] or _EXTRAS))
