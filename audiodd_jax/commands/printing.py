"""Text output of the commands; imports no JAX."""

from collections.abc import Sequence


def percent(fraction: float) -> str:
    """Formats a fraction as a percentage."""
    return f"{100 * fraction:.2f} %"


def table(rows: Sequence[tuple[str, str]]) -> None:
    """Prints rows of name and value."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}s}  {value}")
