"""What the commands share: where things lie, how they stop, how they print."""

import contextlib
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from audiodd_jax.data import datasets


def keep_compiled(cache_dir: Path | None) -> None:
    """Has JAX keep what it compiles on disk: a second run starts in seconds.

    Under this machine's name, since a home folder may serve machines that differ.
    """
    import jax

    if not jax.config.jax_compilation_cache_dir:
        place = (cache_dir or datasets.cache_root()) / "compiled" / platform.node()
        jax.config.update("jax_compilation_cache_dir", str(place))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def cache_dir(values: Any) -> Path | None:
    """Where ``--cache_dir`` has downloads and features kept, or None."""
    return Path(values.cache_dir).expanduser() if values.cache_dir else None


def percent(share: float) -> str:
    """A share in per cent."""
    return f"{100 * share:.2f} %"


@contextlib.contextmanager
def continued(workdir: Path) -> Iterator[None]:
    """Ends the program with a signal's code, saying how to go on, if one came."""
    from audiodd_jax.runtime.interrupt import Interrupted

    try:
        yield
    except Interrupted as stop:
        print(f"{stop}; the same command continues {workdir}", file=sys.stderr)
        raise SystemExit(128 + stop.signum) from None


def names(text: str) -> list[str]:
    """The names in a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def table(rows: Sequence[tuple[str, str]]) -> None:
    """Prints rows of name and value."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}s}  {value}")
