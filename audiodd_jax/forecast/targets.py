"""Accelerators to plan and compile for.

``parse`` reads a target as written by a user: ``v5e`` (one chip), ``v5e:2x4`` (a slice
by its topology), ``h100``, ``h100:8``. Figures are from the makers' data sheets,
without sparsity. TPUs multiply in bfloat16 only: a float32 product takes six passes and
a ``tf32`` product three (``random_conv.PRECISIONS``), which gives their peaks.
"""

import difflib
import math
import re
from typing import NamedTuple

from audiodd_jax.errors import UserError


class Chip(NamedTuple):
    """An accelerator of kind ``tpu`` or ``gpu``, by its data sheet (``source``).

    Attributes:
      memory: bytes.
      bandwidth: bytes per second to and from the memory.
      peak: operations per second by precision; a multiply-add counts as two.
      axes: number of axes of a slice's topology; 1 for GPUs, which are only counted.
    """

    kind: str
    memory: int
    bandwidth: float
    peak: dict[str, float]
    source: str
    axes: int = 1


class Target(NamedTuple):
    """Chips of the kind ``CHIPS[name]``: the shape of a slice, or a number of GPUs."""

    name: str
    shape: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        """The data sheet."""
        return CHIPS[self.name]

    @property
    def size(self) -> int:
        """Number of chips."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        if self.size == 1:
            return self.name
        return f"{self.name}:{'x'.join(map(str, self.shape))}"


def _tpu(gib: int, gigabytes: int, teraflops: int, axes: int, page: str) -> Chip:
    passes = {"float32": 6, "tf32": 3, "bfloat16": 1}
    peak = {name: teraflops * 1e12 / count for name, count in passes.items()}
    source = f"cloud.google.com/tpu/docs/{page}"
    return Chip("tpu", gib << 30, gigabytes * 1e9, peak, source, axes)


def _gpu(
    gigabytes: int, bandwidth: float, teraflops: tuple[int | float, ...], page: str
) -> Chip:
    names = ("float32", "tf32", "bfloat16")
    peak = {name: 1e12 * value for name, value in zip(names, teraflops, strict=True)}
    source = f"nvidia.com/en-us/data-center/{page}"
    return Chip("gpu", gigabytes * 10**9, bandwidth * 1e12, peak, source)


# A v4 or v5p chip is one device with the memory of both cores.
CHIPS = {
    "v4": _tpu(32, 1200, 275, 3, "v4"),
    "v5e": _tpu(16, 819, 197, 2, "v5e"),
    "v5p": _tpu(95, 2765, 459, 3, "v5p"),
    "v6e": _tpu(32, 1640, 918, 2, "v6e"),
    "a100": _gpu(80, 2.039, (19.5, 156, 312), "a100 (SXM, 80 GB)"),
    "h100": _gpu(80, 3.35, (67, 494.5, 989.5), "h100 (SXM)"),
    "h200": _gpu(141, 4.8, (67, 494.5, 989.5), "h200 (SXM)"),
}
# Available slices of chips in two dimensions.
_PLANES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_GPUS_A_HOST = 8


def parse(text: str) -> Target:
    """Parses ``CHIP`` or ``CHIP:TOPOLOGY``.

    Raises:
      UserError: the chip is unknown, or does not have the topology.
    """
    name, _, shape = text.strip().lower().partition(":")
    if name not in CHIPS:
        near = difflib.get_close_matches(name, CHIPS, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else ""
        hint = hint or f"choose from {', '.join(CHIPS)}"
        raise UserError(f"unknown target {name!r}; {hint}")
    chip = CHIPS[name]
    if not shape:
        return Target(name, (1,) * chip.axes)
    sides = shape.split("x")
    if not all(re.fullmatch(r"[1-9]\d{0,3}", side) for side in sides):
        sides = []
    lengths = tuple(map(int, sides))
    if chip.axes == 1:
        count = math.prod(lengths)
        exists = count <= _GPUS_A_HOST or count % _GPUS_A_HOST == 0
        hint = f"give a number up to {_GPUS_A_HOST}, or a multiple of {_GPUS_A_HOST}"
    elif chip.axes == 2:
        exists = shape in _PLANES
        hint = f"choose from {', '.join(_PLANES)}"
    else:
        # Whole trays of 2 x 2 x 1, or cubes of them.
        is_cubes = all(n == 2 or n % 4 == 0 for n in lengths)
        is_sorted = lengths == tuple(sorted(lengths))
        exists = lengths in ((1, 1, 1), (2, 2, 1)) or (is_cubes and is_sorted)
        hint = (
            "three increasing sides, such as 2x2x1, 2x2x2, 2x2x4, 2x4x4, 4x4x4, 4x4x8"
        )
    if len(lengths) != chip.axes or not exists:
        raise UserError(f"{name} has no topology {shape!r}; {hint}")
    return Target(name, lengths)
