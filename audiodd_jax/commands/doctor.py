"""``audiodd doctor``: devices, versions, datasets and free space, with advice."""

import importlib.util
import platform
import shutil

import jax

from audiodd_jax.command_line import CommandLine, table
from audiodd_jax.config import DataConfig
from audiodd_jax.data import datasets, decoders
from audiodd_jax.errors import UserError
from audiodd_jax.runtime.environment import PACKAGES, examine, installed_version
from audiodd_jax.version import __version__


def run(line: CommandLine) -> None:
    """Prints what this machine has, and how to fix what it lacks."""
    data = line.configure_defaults().data
    packages = {package: installed_version(package) for package in PACKAGES}
    versions = [
        f"{name} {version}" if version else f"{name} is missing: pip install {name}"
        for name, version in packages.items()
    ]
    rows = [
        ("audiodd_jax", f"{__version__}, Python {platform.python_version()}"),
        ("packages", ", ".join(versions)),
        ("FFmpeg", decoders.ffmpeg() or decoders.ADVICE),
    ]
    backend = None
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["no such device"])[0]
        advice = "set JAX_PLATFORMS=cpu, or install the jax build of your accelerator"
        rows.append(("devices", f"JAX finds none ({reason}); {advice}"))
    else:
        backend = jax.default_backend()
        kinds = ", ".join(sorted({device.device_kind for device in devices}))
        rows.append(("devices", f"{len(devices)} x {kinds} ({backend})"))
    if backend == "cpu" and shutil.which("nvidia-smi"):
        advice = "JAX does not use the NVIDIA GPU: pip install 'jax[cuda13]'"
        rows.append(("advice", advice))
    try:
        cache = datasets.cache_root(data)
    except UserError as error:
        table([*rows, ("cache", str(error))])
        return
    rows += examine(cache, backend)
    rows += [(f"dataset {n}", _dataset(n, data)) for n in datasets.DATASETS]
    if importlib.util.find_spec("neural_tangents") is None:
        advice = "not installed; pip install 'audiodd_jax[exact]' adds them"
        rows.append(("exact kernels", advice))
    table(rows)


def _dataset(name: str, data: DataConfig) -> str:
    """Returns where a dataset was found, or why it cannot be opened."""
    if name != data.name:
        if datasets.lookup(name).needs_data_dir:
            return "needs --data_dir"
        data = DataConfig(name=name, cache_dir=data.cache_dir)
    try:
        source = datasets.open_source(data)
    except UserError as error:
        return str(error)
    if data.data_dir:
        return f"found in {data.data_dir}"
    if source.fingerprint.startswith("published"):
        return "downloaded when it is first prepared, or give --data_dir"
    return "built in"
