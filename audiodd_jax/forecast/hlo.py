"""What a compiled program does, read from its text (optimised HLO).

Counted per device, by instruction: bytes that it reads and writes in the device's
memory, multiply-adds of convolutions and matrix products, and what it exchanges with
other devices. The body of a loop counts as often as it runs, which the compiler notes
(``Compiled.cost_analysis`` counts it once). Arrays that the compiler keeps in a chip's
own memory (``S(1)`` in a layout) cost no bytes, and padding to tiles does.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

_BITS = {"pred": 8, "token": 0, "opaque": 0, "bf16": 16}
_COLLECTIVES = (
    *("all-reduce", "all-gather", "reduce-scatter", "all-to-all"),
    *("collective-permute", "collective-broadcast"),
)
# Instructions that name or group values, or end what another has begun.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("partition-id", "replica-id", "opt-barrier", "add-dependency", "while"),
    *("conditional", "call", "async-start", "async-update"),
}
# Convolutions of cuDNN.
_LIBRARY = "__cudnn$conv"
_HOST = ("infeed", "outfeed", "send", "recv")


class Array(NamedTuple):
    """An array's type and place.

    Attributes:
      kind: element type.
      shape: its sizes.
      bytes: in the device's memory, with padding; 0 in a chip's own memory.
    """

    kind: str
    shape: tuple[int, ...]
    bytes: int


class Instruction(NamedTuple):
    """An instruction of a computation.

    Attributes:
      name: unique in its computation.
      opcode: of the instruction.
      arrays: its results.
      operands: names of other instructions.
      attributes: its text after the opcode.
      is_root: whether it is the computation's result.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    @property
    def bytes(self) -> int:
        """Of all results."""
        return sum(array.bytes for array in self.arrays)


class Account(NamedTuple):
    """What a program does on each device.

    Attributes:
      flops: of convolutions and matrix products; a multiply-add counts as two.
      bytes: read and written.
      collectives: number and bytes put in, by instruction.
      products: number of convolutions and products by type and precision asked for.
      calls: custom calls by target.
      kinds: element types of all arrays.
      host: instructions that exchange data with the host.
      functions: of the source, that instructions come from.
      rows: what moves most bytes: bytes, flops, times, name, and origin in the source.
    """

    flops: int
    bytes: int
    collectives: dict[str, list[int]]
    products: dict[str, int]
    calls: dict[str, int]
    kinds: list[str]
    host: list[str]
    functions: list[str]
    rows: list[list[Any]]


def account(text: str, most: int = 40) -> Account:
    """Reads a program.

    Args:
      text: of ``Compiled.as_text``.
      most: rows to keep.
    """
    program = _Program(text)
    program.visit(program.entry, 1)
    found = re.findall(r"\b([a-z]+\d+\w*|pred)\[", text)
    rows = sorted(program.rows, key=lambda row: -row[0])[:most]
    return Account(
        sum(row[1] for row in program.rows),
        sum(row[0] for row in program.rows),
        program.collectives,
        dict(program.products),
        dict(program.calls),
        sorted(set(found)),
        sorted(program.host),
        _functions(text),
        rows,
    )


def _functions(text: str) -> list[str]:
    """The names in the table of functions that some texts begin with."""
    table = re.search(r"^FunctionNames\n((?:\d+ .*\n)*)", text, re.MULTILINE)
    return re.findall(r'"(.*)"', table[1]) if table else []


def _arrays(text: str) -> tuple[Array, ...]:
    """The arrays of a type, tuples taken apart."""
    found = []
    for kind, sizes, layout in re.findall(r"(\w+)\[([\d,<=]*)\](\{[^}]*\})?", text):
        shape = tuple(int(n.strip("<=")) for n in sizes.split(",") if n)
        found.append(Array(kind, shape, _bytes(kind, shape, layout)))
    return tuple(found)


def _bytes(kind: str, shape: tuple[int, ...], layout: str) -> int:
    """Size of an array with the padding of its tiles; 0 outside of the main memory."""
    digits = re.search(r"\d+", kind)
    bits = _BITS.get(kind, int(digits[0]) if digits else 0)
    if re.search(r"S\([1-9]", layout):
        return 0
    sizes = list(shape)
    order, _, tiles = layout.strip("{}").partition(":")
    if found := re.search(r"T\(([\d,]+)\)", tiles):
        minor = [int(n) for n in order.split(",") if n]
        tile = [int(n) for n in found[1].split(",")][::-1]
        for axis, size in zip(minor, tile, strict=False):
            sizes[axis] = -(-sizes[axis] // size) * size
    return math.prod(sizes) * bits // 8


def _closing(text: str, start: int) -> int:
    """Position after the parenthesis that closes the one at ``start``."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i + 1
    return len(text)


def _instruction(line: str) -> Instruction | None:
    begun = re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line)
    if not begun:
        return None
    rest = line[begun.end() :]
    cut = _closing(rest, 0) if rest[0] == "(" else rest.find(" ")
    kind, rest = rest[:cut], rest[cut:].lstrip()
    opening = rest.find("(")
    end = _closing(rest, opening)
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[opening:end]))
    return Instruction(
        begun[2],
        rest[:opening],
        _arrays(kind),
        operands,
        rest[opening:],
        bool(begun[1]),
    )


class _Program:
    """A program's computations, and what was counted of them so far."""

    def __init__(self, text: str):
        self.entry = ""
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.rows: list[list[Any]] = []
        self.collectives: dict[str, list[int]] = {}
        self.products: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.host: set[str] = set()
        current: dict[str, Instruction] = {}
        for line in text.splitlines():
            head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
            if head and not line.startswith("HloModule"):
                current = self.computations[head[2]] = {}
                self.entry = head[2] if head[1] else self.entry
            elif found := _instruction(line):
                current[found.name] = found

    def visit(self, name: str, times: int) -> None:
        """Counts the instructions of a computation that runs some times."""
        own = self.computations[name]
        for instruction in own.values():
            flops = times * self._flops(instruction, own)
            self._note(instruction, own, times)
            size = times * self._bytes(instruction, own)
            if size or flops:
                origin = re.search(r'op_name="([^"]*)"', instruction.attributes)
                self.rows.append(
                    [size, flops, times, instruction.name, origin[1] if origin else ""]
                )
            for called in self._called(instruction):
                self.visit(called, times * self._trips(instruction))

    def _called(self, instruction: Instruction) -> list[str]:
        """Computations that an instruction runs in the open, not as one kernel."""
        text, opcode = instruction.attributes, instruction.opcode
        if opcode == "while":
            return re.findall(r"body=%([\w.\-]+)", text)
        if opcode in ("call", "async-start"):
            return re.findall(r"(?:to_apply|calls)=%([\w.\-]+)", text)
        if opcode == "conditional":
            found = re.search(r"branch_computations=\{([^}]*)\}", text)
            names = re.findall(r"%([\w.\-]+)", found[1]) if found else []
            names += re.findall(r"(?:true|false)_computation=%([\w.\-]+)", text)
            # One branch runs: the longest stands for it.
            return [max(names, key=lambda name: len(self.computations[name]))]
        return []

    def _trips(self, instruction: Instruction) -> int:
        """How often a loop runs: as noted, or up to what it counts to."""
        found = re.search(r"known_trip_count\D+(\d+)", instruction.attributes)
        if found:
            return int(found[1])
        name = re.search(r"condition=%([\w.\-]+)", instruction.attributes)
        condition = self.computations.get(name[1], {}) if name else {}
        root = next((i for i in condition.values() if i.is_root), None)
        if root and root.opcode == "compare" and "direction=LT" in root.attributes:
            for operand in root.operands:
                value = re.match(r"\((\d+)\)", condition[operand].attributes)
                if condition[operand].opcode == "constant" and value:
                    return int(value[1])
        return 1

    def _fused(self, instruction: Instruction) -> dict[str, Instruction]:
        """The computation of a fusion; empty for others."""
        if instruction.opcode != "fusion":
            return {}
        found = re.search(r"calls=%([\w.\-]+)", instruction.attributes)
        return self.computations.get(found[1], {}) if found else {}

    def _inner(self, instruction: Instruction) -> Iterator[tuple[Instruction, dict]]:
        """The instructions of a fusion, and of those in it."""
        fused = self._fused(instruction)
        for inner in fused.values():
            yield inner, fused
            yield from self._inner(inner)

    def _note(self, instruction: Instruction, own: dict, times: int) -> None:
        """Collectives, custom calls, precisions and exchanges with the host."""
        for found, where in ((instruction, own), *self._inner(instruction)):
            opcode = found.opcode.removesuffix("-start")
            if opcode in _COLLECTIVES:
                put_in = sum(
                    math.prod(a.shape) * _width(a.kind)
                    for name in found.operands
                    for a in where[name].arrays
                )
                entry = self.collectives.setdefault(opcode, [0, 0])
                entry[0] += times
                entry[1] += times * put_in
            if found.opcode in ("convolution", "dot") or _LIBRARY in found.attributes:
                kind = where[found.operands[0]].arrays[0].kind
                asked = re.search(r"operand_precision=\{(\w+)", found.attributes)
                self.products[f"{kind} {asked[1] if asked else 'default'}"] += 1
            if opcode in _HOST or "is_host_transfer=true" in found.attributes:
                self.host.add(opcode)
            if found.opcode == "custom-call":
                target = re.search(r'custom_call_target="([^"]*)"', found.attributes)
                self.calls[target[1] if target else ""] += 1
                if target and "callback" in target[1]:
                    self.host.add(target[1])

    def _flops(self, instruction: Instruction, own: dict) -> int:
        pairs = [(instruction, own), *self._inner(instruction)]
        return sum(_products(found, where) for found, where in pairs)

    def _bytes(self, instruction: Instruction, own: dict) -> int:
        """What an instruction reads and writes."""
        opcode = instruction.opcode
        if opcode in _FREE or opcode.endswith("-done"):
            return 0
        operands = [own[name].bytes for name in instruction.operands if name in own]
        if opcode in ("dynamic-slice", "gather", "slice"):
            return 2 * instruction.bytes
        if opcode in ("dynamic-update-slice", "scatter"):
            return 2 * own[instruction.operands[1]].bytes
        if opcode.endswith("-start"):
            # The results are the operands again, and what is made of them.
            return sum(operands) + max((a.bytes for a in instruction.arrays), default=0)
        if opcode == "fusion":
            return _fusion_bytes(self._fused(instruction), operands, instruction)
        return sum(operands) + instruction.bytes


def _width(kind: str) -> int:
    digits = re.search(r"\d+", kind)
    return _BITS.get(kind, int(digits[0]) if digits else 0) // 8


def _fusion_bytes(
    fused: dict[str, Instruction], operands: list[int], whole: Instruction
) -> int:
    """Of operands of which slices are read, and results of which some are written."""
    users: dict[str, list[Instruction]] = {}
    for found in fused.values():
        for name in found.operands:
            users.setdefault(name, []).append(found)
    size, written = 0, whole.bytes
    parameters = [f for f in fused.values() if f.opcode == "parameter"]
    parameters.sort(key=lambda f: int(re.search(r"\d+", f.attributes or "0")[0]))
    for parameter, full in zip(parameters, operands, strict=False):
        readers = users.get(parameter.name, [])
        if full and readers and all(_reads_a_part(r, parameter.name) for r in readers):
            size += min(full, sum(_part(r, fused) for r in readers))
        else:
            size += full
    for found in fused.values():
        if found.opcode == "dynamic-update-slice" and (
            found.is_root or all(u.is_root for u in users.get(found.name, [found]))
        ):
            part = fused[found.operands[1]].bytes or found.bytes
            written -= max(0, min(found.bytes, written) - part)
    return size + max(0, written)


def _reads_a_part(reader: Instruction, name: str) -> bool:
    if reader.opcode == "dynamic-update-slice":
        return reader.operands[0] == name
    return reader.opcode in ("dynamic-slice", "gather", "slice") and (
        reader.operands[0] == name
    )


def _part(reader: Instruction, fused: dict[str, Instruction]) -> int:
    """Bytes that a reader takes of its first operand."""
    if reader.opcode == "dynamic-update-slice":
        return 0  # in place
    return sum(math.prod(a.shape) * _width(a.kind) for a in reader.arrays)


def _products(instruction: Instruction, own: dict[str, Instruction]) -> int:
    """Operations of a convolution or a matrix product, else 0."""
    text, opcode = instruction.attributes, instruction.opcode
    if opcode not in ("convolution", "dot", "custom-call"):
        return 0
    arrays = [own[name].arrays[0] for name in instruction.operands if name in own]
    out = instruction.arrays[0] if instruction.arrays else None
    if opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", text)
        axes = [int(n) for n in contracted[1].split(",") if n]
        sizes = [arrays[0].shape[axis] for axis in axes]
        return 2 * math.prod(out.shape) * math.prod(sizes)
    labels = re.search(r"dim_labels=\w+_(\w+)->", text)
    if opcode == "convolution":
        return _convolution(out, arrays[1], labels[1], text)
    if "__cublas" in text:
        found = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', text)
        axes = [int(n) for n in re.findall(r"\d+", found[1])] if found else []
        sizes = [arrays[0].shape[axis] for axis in axes]
        return 2 * math.prod(out.shape) * math.prod(sizes)
    if _LIBRARY in text and labels:
        # The three of one convolution, by which of its arrays comes out.
        if "BackwardFilter" in text:
            return _convolution(arrays[1], out, labels[1], text)
        if "BackwardInput" in text:
            return _convolution(arrays[0], arrays[1], labels[1], text)
        return _convolution(out, arrays[1], labels[1], text)
    return 0


def _convolution(out: Array, kernel: Array, labels: str, text: str) -> int:
    """Operations of a convolution with these outputs and this kernel."""
    taps = math.prod(kernel.shape) // max(1, kernel.shape[labels.index("o")])
    spaced = re.search(r"lhs_dilate=([\dx]+)", text)
    holes = math.prod(int(n) for n in spaced[1].split("x")) if spaced else 1
    return 2 * math.prod(out.shape) * taps // holes
