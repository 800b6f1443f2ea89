"""``audiodd doctor``: devices, versions, datasets and free space, with advice."""

import importlib.util
import platform
import shutil

import jax

from audiodd_jax.command_line import CommandLine
from audiodd_jax.commands.printing import table
from audiodd_jax.config import DataConfig
from audiodd_jax.data import datasets
from audiodd_jax.errors import UserError
from audiodd_jax.runtime import machine
from audiodd_jax.runtime.environment import PACKAGES, installed_version
from audiodd_jax.version import __version__


def run(line: CommandLine) -> None:
    """Prints what this machine has, and how to fix what it lacks."""
    table(examine(line.configure_defaults().data))


def examine(data: DataConfig) -> list[tuple[str, str]]:
    """Returns rows of name and finding; problems come with advice."""
    backend, devices = _devices()
    rows = [
        ("audiodd_jax", f"{__version__}, Python {platform.python_version()}"),
        ("packages", ", ".join(map(_version, PACKAGES))),
        *devices,
    ]
    try:
        cache = datasets.cache_root(data)
    except UserError as error:
        return [*rows, ("cache", str(error))]
    rows += machine.examine(cache, backend)
    rows += [_dataset(name, data) for name in datasets.DATASETS]
    if importlib.util.find_spec("neural_tangents") is None:
        advice = "not installed; pip install 'audiodd_jax[exact]' adds them"
        rows.append(("exact kernels", advice))
    return rows


def _version(package: str) -> str:
    version = installed_version(package)
    if version is None:
        return f"{package} is missing: pip install {package}"
    return f"{package} {version}"


def _devices() -> tuple[str | None, list[tuple[str, str]]]:
    """Returns JAX's platform, or None if it cannot start, and rows about devices."""
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["no such device"])[0]
        advice = "set JAX_PLATFORMS=cpu, or install the jax build of your accelerator"
        return None, [("devices", f"JAX finds none ({reason}); {advice}")]
    kinds = ", ".join(sorted({device.device_kind for device in devices}))
    backend = jax.default_backend()
    rows = [("devices", f"{len(devices)} x {kinds} ({backend})")]
    if backend == "cpu" and shutil.which("nvidia-smi"):
        advice = "JAX does not use the NVIDIA GPU: pip install 'jax[cuda13]'"
        rows.append(("advice", advice))
    return backend, rows


def _dataset(name: str, data: DataConfig) -> tuple[str, str]:
    """Returns where a dataset was found, or why it cannot be opened."""
    label = f"dataset {name}"
    if datasets.lookup(name).needs_data_dir and name != data.name:
        return label, "needs --data_dir"
    if name != data.name:
        data = DataConfig(name=name, cache_dir=data.cache_dir)
    try:
        source = datasets.open_source(data)
    except UserError as error:
        return label, str(error)
    if data.data_dir:
        return label, f"found in {data.data_dir}"
    if source.fingerprint.startswith("published"):
        return label, "downloaded when it is first prepared, or give --data_dir"
    return label, "built in"
