"""Runs accelerators' compilers on machines without an accelerator.

libtpu compiles for TPUs, JAX's CUDA plugin for NVIDIA GPUs; neither needs a device or a
driver. Both are in a separate folder, on the path of the compiling process only. Where
JAX finds them without a device, it prints a stack trace and errors in every program. An
environment that has them anyway, as on an accelerator, uses its own.

That process is a child: if a compiler crashes, hangs or refuses, the user sees one
sentence.
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
from typing import Any

from packaging.requirements import Requirement

from audiodd_jax.errors import UserError
from audiodd_jax.forecast.targets import Target
from audiodd_jax.runtime import signals

# Environment variable of the compilers' folder.
FOLDER = "AUDIODD_COMPILERS"
# Before each line of the child's answer: compilers print to the same output.
_MARK = "audiodd-compiled "
# What XLA needs to know of a GPU, by its own names, from the architecture's manual.
_GPU = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "threads_per_core_limit": 2048,
    "shared_memory_per_block": 48 << 10,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 65535,
    "block_dim_limit_z": 65535,
    "registers_per_core_limit": 65536,
    "registers_per_block_limit": 65536,
}
_AMPERE = {
    "cuda_compute_capability": "{ major: 8 minor: 0 }",
    "core_count": 108,
    "fpus_per_core": 64,
    "shared_memory_per_core": 164 << 10,
    "shared_memory_per_block_optin": 163 << 10,
    "l2_cache_size": 40 << 20,
    "clock_rate_ghz": 1.41,
}
_HOPPER = {
    "cuda_compute_capability": "{ major: 9 minor: 0 }",
    "core_count": 132,
    "fpus_per_core": 128,
    "shared_memory_per_core": 228 << 10,
    "shared_memory_per_block_optin": 227 << 10,
    "l2_cache_size": 50 << 20,
    "clock_rate_ghz": 1.98,
}
_GPUS = {"a100": _AMPERE, "h100": _HOPPER, "h200": _HOPPER}


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


def command(kind: str) -> str:
    """Returns the command that installs the compiler of a kind into the folder."""
    pip = f"{sys.executable} -m pip install --no-deps --upgrade"
    packages = " ".join(f"'{name}'" for name in requirements(kind))
    return f"{pip} --target {folder()} {packages}"


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
            jax = importlib.metadata.version("jax")
            raise UserError(
                f"{required.name} {package.version} does not fit jax {jax}, "
                f"which needs {required}: {command(kind)}"
            )
        installed[required.name] = package.version
    return installed


def environment(target: Target) -> dict[str, str]:
    """Returns the environment variables of a process that compiles for a target."""
    path = [*sys.path, os.environ.get("PYTHONPATH", "")]
    variables = {
        **os.environ,
        **signals.child_variables(),
        # The process itself runs on the CPU.
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    if target.chip.kind == "gpu":
        path = [str(folder()), *path]
    else:
        variables |= {
            "TPU_SKIP_MDS_QUERY": "1",
            # The process does not occupy a device, so several may run.
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_ACCELERATOR_TYPE": "v5litepod-8",
            "TPU_MIN_LOG_LEVEL": "3",
            "TPU_STDERR_LOG_LEVEL": "3",
        }
        library = folder() / "libtpu" / "libtpu.so"
        if library.exists():
            variables["TPU_LIBRARY_PATH"] = str(library)
    return {**variables, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def devices_of(target: Target) -> list[Any]:
    """Returns JAX devices that programs can be compiled for, but not run on.

    The process must have the variables of ``environment``. An unknown topology is a
    UserError.
    """
    from jax.experimental import topologies

    chip, sides = target.chip, "x".join(map(str, target.shape))
    if chip.kind == "gpu":
        hosts = -(-target.size // 8)
        memory = {
            "memory_bandwidth": int(chip.bandwidth),
            "device_memory_size": chip.memory,
        }
        info = {**_GPU, **_GPUS[target.name], **memory}.items()
        description = [
            *("gpu_device_info {", *(f"  {name}: {value}" for name, value in info)),
            *("}", 'platform_name: "CUDA"'),
            "dnn_version_info { major: 9 minor: 8 patch: 0 }",
            f'device_description_str: "NVIDIA {target.name.upper()}"',
        ]
        options = {
            "platform": "cuda",
            "topology_name": "",
            "target_config": "\n".join(description),
            "topology": f"1x{hosts}x{target.size // hosts}",
        }
    else:
        options = {"platform": "tpu", "topology_name": f"{target.name}:{sides}"}
        if target.size == 1:
            options["chips_per_host_bounds"] = (1, 1, 1)
        if chip.axes == 3:
            # Both cores of a chip as one device.
            options["chip_config_name"] = "megacore"
    try:
        return list(topologies.get_topology_desc(**options).devices)
    except Exception as error:
        raise UserError(
            f"the compiler of {target.name} has no topology {sides}: "
            f"{first_line(error)}"
        ) from error


def answer(values: dict[str, Any]) -> None:
    """Prints a line of the child's answer."""
    print(_MARK + json.dumps(values), flush=True)


def ask(
    target: Target, request: dict[str, Any], module: str, seconds: float = 1800.0
) -> list[dict[str, Any]]:
    """Compiles programs in a child process, and returns its answers.

    If a program crashes the compiler, its answer has an ``error``, and another process
    compiles the remaining programs. ``module``, run by ``python -m``, reads the
    request, with the number of programs to ``skip``. It ``answer``s with the names of
    its programs, then once per program. A process is stopped after ``seconds``; the
    longest command took four minutes on two CPU cores.

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
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", module],
            env=environment(target),
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=seconds,
        )
        out, code = done.stdout, done.returncode
        if code < 0:
            problem = f"crashed ({signal.Signals(-code).name})"
        elif code:
            errors = done.stderr.decode(errors="replace").strip()
            last = errors.splitlines()[-1:]
            problem = f"failed with code {code}"
            if last:
                problem = f"failed: {last[0].strip()[:200]}"
    except subprocess.TimeoutExpired as stopped:
        out, problem = stopped.stdout or b"", f"was stopped after {seconds:,.0f} s"
    lines = []
    for line in out.decode(errors="replace").splitlines():
        # The last one may be cut off.
        with contextlib.suppress(json.JSONDecodeError):
            if line.startswith(_MARK):
                lines.append(json.loads(line.removeprefix(_MARK)))
    return lines, problem


def first_line(error: BaseException) -> str:
    """Returns the first line of an error, short enough for a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


if __name__ == "__main__":
    for missing in sys.argv[1:] or ("tpu", "gpu"):
        try:
            versions(missing)
        except UserError:
            subprocess.run([*shlex.split(command(missing)), "--quiet"], check=True)
