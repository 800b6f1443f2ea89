"""Versions, devices and revision of a run."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from audiodd_jax.version import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "soundfile")


_NUMERICS = {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_enable_x64": False,
    # Step by step, other numbers come out, and a run takes hours.
    "jax_disable_jit": False,
}


def describe() -> dict[str, Any]:
    """Versions, devices and revision that a run's numbers depend on."""
    versions = {name: _installed_version(name) for name in PACKAGES}
    return {
        "audiodd_jax": __version__,
        "revision": _git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "num_processes": jax.process_count(),
        "numerics": numerics(),
        "cpus": os.cpu_count(),
        "command": sys.argv,
    }


def numerics() -> dict[str, Any]:
    """JAX's settings that change a run's numbers."""
    return {name: getattr(jax.config, name, None) for name in _NUMERICS}


def set_numerics(**values: Any) -> None:
    """Sets ``numerics``, by default as JAX has them without any setting.

    Args:
      **values: those that differ from the defaults.
    """
    for name, value in {**_NUMERICS, **values}.items():
        # Later versions lack settings of which one value is left.
        with contextlib.suppress(AttributeError):
            jax.config.update(name, value)


@contextlib.contextmanager
def default_numerics() -> Iterator[None]:
    """Within it, numbers do not depend on the settings of JAX."""
    before = numerics()
    set_numerics()
    try:
        yield
    finally:
        set_numerics(**before)


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """Revision of the checkout that this package runs from, if any."""
    package = Path(__file__).parents[1]
    if not (package.parent / ".git").exists():
        return None
    try:
        command = [
            "git",
            "-C",
            package,
            "describe",
            "--always",
            "--dirty",
            "--abbrev=12",
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
