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
    # Without jit the numbers differ, and a run takes hours.
    "jax_disable_jit": False,
}


def describe() -> dict[str, Any]:
    """Returns the versions, devices and revision that a run's numbers depend on."""
    return {
        "audiodd_jax": __version__,
        "revision": _git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: installed_version(name) for name in PACKAGES},
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "num_processes": jax.process_count(),
        "numerics": numerics(),
        "cpus": os.cpu_count(),
        "command": sys.argv,
    }


def numerics() -> dict[str, Any]:
    """Returns JAX's settings that change a run's numbers."""
    return {name: getattr(jax.config, name, None) for name in _NUMERICS}


def set_numerics(**values: Any) -> None:
    """Sets ``numerics`` to these values and, for the others, to JAX's defaults."""
    for name, value in {**_NUMERICS, **values}.items():
        # Later versions of JAX drop settings that have only one value left.
        with contextlib.suppress(AttributeError):
            jax.config.update(name, value)


@contextlib.contextmanager
def default_numerics() -> Iterator[None]:
    """Makes the block's numbers independent of the settings of JAX."""
    before = numerics()
    set_numerics()
    try:
        yield
    finally:
        set_numerics(**before)


def installed_version(name: str) -> str | None:
    """Returns the version of an installed package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """Returns the revision of the checkout that this package runs from, if any."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", checkout, "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
