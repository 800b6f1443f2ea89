"""The job of ``audiodd doctor``: devices, versions, datasets, space, and advice."""

import importlib.metadata
import importlib.util
import platform
import shutil
from pathlib import Path

from audiodd_jax.config import DataConfig
from audiodd_jax.data import datasets
from audiodd_jax.errors import UserError
from audiodd_jax.runtime import machine
from audiodd_jax.runtime.environment import PACKAGES
from audiodd_jax.version import __version__


def examine(data: DataConfig, cache_dir: Path | None = None) -> list[tuple[str, str]]:
    """Rows of name and finding; problems come with advice."""
    backend, devices = _devices()
    rows = [
        ("audiodd_jax", f"{__version__}, Python {platform.python_version()}"),
        *_versions(),
        *devices,
    ]
    try:
        cache_dir = cache_dir or datasets.cache_root()
    except UserError as error:
        return [*rows, ("cache", str(error))]
    rows += machine.examine(cache_dir, backend)
    rows += [_dataset(name, data, cache_dir) for name in datasets.DATASETS]
    if importlib.util.find_spec("neural_tangents") is None:
        rows.append(
            (
                "exact kernels",
                "not installed; pip install 'audiodd_jax[exact]' adds them",
            )
        )
    return rows


def _versions() -> list[tuple[str, str]]:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} is missing: pip install {name}")
    return [("packages", ", ".join(found))]


def _devices() -> tuple[str | None, list[tuple[str, str]]]:
    """JAX's platform, or None if it cannot start; and rows."""
    import jax

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


def _dataset(name: str, data: DataConfig, cache: Path | None) -> tuple[str, str]:
    """Whether a dataset can be opened with the given settings."""
    label = f"dataset {name}"
    if datasets.lookup(name).needs_data_dir and name != data.name:
        return label, "needs --data_dir"
    chosen = data if name == data.name else DataConfig(name=name)
    try:
        source = datasets.open_source(chosen, cache)
    except UserError as error:
        return label, str(error)
    where = f"found in {chosen.data_dir}" if chosen.data_dir else "built in"
    if not chosen.data_dir and source.fingerprint.startswith("published"):
        where = "downloaded when it is first prepared, or give --data_dir"
    return label, where
