"""Reads what a compiled program does from its text (optimised HLO).

Counted per device, by instruction: bytes read and written in the device's memory,
multiply-adds of convolutions and matrix products, and bytes exchanged with other
devices. The body of a loop counts as often as it runs, as noted by the compiler
(``Compiled.cost_analysis`` counts it once). Arrays that the compiler keeps in a chip's
own memory (``S(1)`` in a layout) cost no bytes; padding to tiles does.
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
# Instructions that name or group values, or end what another one started.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("partition-id", "replica-id", "opt-barrier", "add-dependency", "while"),
    *("conditional", "call", "async-start", "async-update"),
}
# cuDNN's convolutions, and cuBLAS's products.
_CUDNN, _CUBLAS = "__cudnn$conv", "__cublas"
_HOST = ("infeed", "outfeed", "send", "recv")
_SLICES = ("dynamic-slice", "gather", "slice")


class Array(NamedTuple):
    """The type and size of an array.

    Attributes:
      kind: element type.
      shape: lengths of the axes.
      bytes: in the device's memory, with padding; 0 in a chip's own memory.
    """

    kind: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def elements(self) -> int:
        """Number of elements, without padding."""
        return math.prod(self.shape)

    @property
    def unpadded(self) -> int:
        """Bytes without padding."""
        return self.elements * (_bits(self.kind) // 8)


class Instruction(NamedTuple):
    """An instruction of a computation.

    Attributes:
      name: unique in its computation.
      opcode: operation.
      arrays: results.
      operands: names of other instructions.
      attributes: text after the opcode.
      is_root: True if it is the computation's result.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    @property
    def bytes(self) -> int:
        """Bytes of all results."""
        return sum(array.bytes for array in self.arrays)

    def find(self, pattern: str) -> str:
        """Returns the first group of a pattern in the attributes, or nothing."""
        match = re.search(pattern, self.attributes)
        return match[1] if match else ""


Computation = dict[str, Instruction]


class Account(NamedTuple):
    """The work of a program on each device.

    Attributes:
      flops: operations of convolutions and products; a multiply-add counts as two.
      bytes: bytes read and written.
      collectives: number of calls and bytes sent, by instruction.
      products: number of convolutions and products, by type and requested precision.
      calls: number of custom calls, by target.
      kinds: element types of all arrays.
      host: instructions that exchange data with the host.
      functions: functions of the source that instructions come from.
      rows: the instructions that move most bytes: bytes, flops, times, name, and origin
        in the source.
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
    """Reads a program from ``Compiled.as_text``, and keeps ``most`` rows."""
    program = _Program(text)
    program.visit(program.entry, 1)
    table = re.search(r"^FunctionNames\n((?:\d+ .*\n)*)", text, re.MULTILINE)
    return Account(
        sum(row[1] for row in program.rows),
        sum(row[0] for row in program.rows),
        program.collectives,
        dict(program.products),
        dict(program.calls),
        sorted(set(re.findall(r"\b([a-z]+\d+\w*|pred)\[", text))),
        sorted(program.host),
        re.findall(r'"(.*)"', table[1]) if table else [],
        sorted(program.rows, key=lambda row: -row[0])[:most],
    )


def _bits(kind: str) -> int:
    """Returns the bits of an element."""
    digits = re.search(r"\d+", kind)
    return _BITS.get(kind, int(digits[0]) if digits else 0)


def _arrays(text: str) -> tuple[Array, ...]:
    """Returns the arrays of a type, which may be a tuple."""
    arrays = []
    for kind, sizes, layout in re.findall(r"(\w+)\[([\d,<=]*)\](\{[^}]*\})?", text):
        shape = tuple(int(n.strip("<=")) for n in sizes.split(",") if n)
        arrays.append(Array(kind, shape, _bytes(kind, shape, layout)))
    return tuple(arrays)


def _bytes(kind: str, shape: tuple[int, ...], layout: str) -> int:
    """Returns an array's size with padding; 0 outside the main memory."""
    if re.search(r"S\([1-9]", layout):
        return 0
    sizes = list(shape)
    order, _, tiles = layout.strip("{}").partition(":")
    if match := re.search(r"T\(([\d,]+)\)", tiles):
        minor = [int(n) for n in order.split(",") if n]
        tile = [int(n) for n in match[1].split(",")][::-1]
        for axis, size in zip(minor, tile, strict=False):
            sizes[axis] = -(-sizes[axis] // size) * size
    return math.prod(sizes) * _bits(kind) // 8


def _closing(text: str, start: int) -> int:
    """Returns the position after the parenthesis that closes the one at ``start``."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i + 1
    return len(text)


def _instruction(line: str) -> Instruction | None:
    """Reads a line; None if it holds no instruction."""
    match = re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line)
    if not match:
        return None
    rest = line[match.end() :]
    cut = _closing(rest, 0) if rest[0] == "(" else rest.find(" ")
    kind, rest = rest[:cut], rest[cut:].lstrip()
    opening = rest.find("(")
    operands = re.findall(r"%([\w.\-]+)", rest[opening : _closing(rest, opening)])
    return Instruction(
        match[2],
        rest[:opening],
        _arrays(kind),
        tuple(operands),
        rest[opening:],
        bool(match[1]),
    )


class _Program:
    """The computations of a program, and the counts so far."""

    def __init__(self, text: str):
        self.entry = ""
        self.computations: dict[str, Computation] = {}
        self.rows: list[list[Any]] = []
        self.collectives: dict[str, list[int]] = {}
        self.products: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.host: set[str] = set()
        current: Computation = {}
        for line in text.splitlines():
            head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
            if head and not line.startswith("HloModule"):
                current = self.computations[head[2]] = {}
                self.entry = head[2] if head[1] else self.entry
            elif instruction := _instruction(line):
                current[instruction.name] = instruction

    def visit(self, name: str, times: int) -> None:
        """Counts the instructions of a computation that runs ``times`` times."""
        computation = self.computations[name]
        for instruction in computation.values():
            parts = [(instruction, computation), *self._inner(instruction)]
            for part, where in parts:
                self._note(part, where, times)
            flops = times * sum(_products(part, where) for part, where in parts)
            size = times * self._bytes(instruction, computation)
            if size or flops:
                origin = instruction.find(r'op_name="([^"]*)"')
                self.rows.append([size, flops, times, instruction.name, origin])
            for called in self._called(instruction):
                self.visit(called, times * self._trips(instruction))

    def _called(self, instruction: Instruction) -> list[str]:
        """Returns the computations that an instruction runs, unless as one kernel."""
        text, opcode = instruction.attributes, instruction.opcode
        if opcode == "while":
            return re.findall(r"body=%([\w.\-]+)", text)
        if opcode in ("call", "async-start"):
            return re.findall(r"(?:to_apply|calls)=%([\w.\-]+)", text)
        if opcode == "conditional":
            branches = instruction.find(r"branch_computations=\{([^}]*)\}")
            names = re.findall(r"%([\w.\-]+)", branches)
            names += re.findall(r"(?:true|false)_computation=%([\w.\-]+)", text)
            # One branch runs: the longest represents it.
            return [max(names, key=lambda name: len(self.computations[name]))]
        return []

    def _trips(self, instruction: Instruction) -> int:
        """Returns how often a loop runs: as noted, or the limit of its counter."""
        if noted := instruction.find(r"known_trip_count\D+(\d+)"):
            return int(noted)
        name = instruction.find(r"condition=%([\w.\-]+)")
        condition = self.computations.get(name, {})
        root = next((i for i in condition.values() if i.is_root), None)
        if root and root.opcode == "compare" and "direction=LT" in root.attributes:
            for operand in root.operands:
                limit = re.match(r"\((\d+)\)", condition[operand].attributes)
                if condition[operand].opcode == "constant" and limit:
                    return int(limit[1])
        return 1

    def _fused(self, instruction: Instruction) -> Computation:
        """Returns the computation of a fusion; empty for other instructions."""
        if instruction.opcode != "fusion":
            return {}
        return self.computations.get(instruction.find(r"calls=%([\w.\-]+)"), {})

    def _inner(self, instruction: Instruction) -> Iterator[tuple[Instruction, dict]]:
        """Yields the instructions of a fusion, and of the fusions in it."""
        fused = self._fused(instruction)
        for inner in fused.values():
            yield inner, fused
            yield from self._inner(inner)

    def _note(self, part: Instruction, where: Computation, times: int) -> None:
        """Counts collectives, custom calls, precisions and exchanges with the host."""
        opcode, text = part.opcode, part.attributes
        collective = opcode.removesuffix("-start")
        if collective in _COLLECTIVES:
            sent = sum(a.unpadded for name in part.operands for a in where[name].arrays)
            entry = self.collectives.setdefault(collective, [0, 0])
            entry[0] += times
            entry[1] += times * sent
        if opcode in ("convolution", "dot") or _CUDNN in text:
            kind = where[part.operands[0]].arrays[0].kind
            precision = part.find(r"operand_precision=\{(\w+)") or "default"
            self.products[f"{kind} {precision}"] += 1
        if collective in _HOST or "is_host_transfer=true" in text:
            self.host.add(collective)
        if opcode == "custom-call":
            target = part.find(r'custom_call_target="([^"]*)"')
            self.calls[target] += 1
            if "callback" in target:
                self.host.add(target)

    def _bytes(self, instruction: Instruction, where: Computation) -> int:
        """Returns the bytes that an instruction reads and writes."""
        opcode, names = instruction.opcode, instruction.operands
        if opcode in _FREE or opcode.endswith("-done"):
            return 0
        operands = [where[name].bytes for name in names if name in where]
        if opcode in _SLICES:
            return 2 * instruction.bytes
        if opcode in ("dynamic-update-slice", "scatter"):
            return 2 * where[names[1]].bytes
        if opcode.endswith("-start"):
            # The results are the operands again, and the output.
            return sum(operands) + max((a.bytes for a in instruction.arrays), default=0)
        if opcode == "fusion":
            return _fusion_bytes(self._fused(instruction), operands, instruction)
        return sum(operands) + instruction.bytes


def _fusion_bytes(fused: Computation, operands: list[int], whole: Instruction) -> int:
    """Returns the bytes of a fusion, which may use only slices of its arrays."""
    users: dict[str, list[Instruction]] = {}
    for instruction in fused.values():
        for name in instruction.operands:
            users.setdefault(name, []).append(instruction)
    size, written = 0, whole.bytes
    parameters = [i for i in fused.values() if i.opcode == "parameter"]
    parameters.sort(key=lambda i: int(i.find(r"(\d+)") or 0))
    for parameter, full in zip(parameters, operands, strict=False):
        readers = users.get(parameter.name, [])
        parts = [_slice_bytes(reader, parameter.name) for reader in readers]
        if full and parts and None not in parts:
            size += min(full, sum(parts))
        else:
            size += full
    for instruction in fused.values():
        readers = users.get(instruction.name, [instruction])
        is_result = instruction.is_root or all(reader.is_root for reader in readers)
        if instruction.opcode == "dynamic-update-slice" and is_result:
            part = fused[instruction.operands[1]].bytes or instruction.bytes
            written -= max(0, min(instruction.bytes, written) - part)
    return size + max(0, written)


def _slice_bytes(reader: Instruction, name: str) -> int | None:
    """Returns the bytes that a slice reads of an array; None if it reads all of it."""
    if reader.operands[0] != name:
        return None
    if reader.opcode == "dynamic-update-slice":
        return 0  # in place
    if reader.opcode in _SLICES:
        return sum(array.unpadded for array in reader.arrays)
    return None


def _products(instruction: Instruction, where: Computation) -> int:
    """Returns the operations of a convolution or a matrix product, otherwise 0."""
    text, opcode = instruction.attributes, instruction.opcode
    if opcode not in ("convolution", "dot", "custom-call"):
        return 0
    arrays = [where[name].arrays[0] for name in instruction.operands if name in where]
    out = instruction.arrays[0] if instruction.arrays else None
    if opcode == "dot" or _CUBLAS in text:
        axes = instruction.find(r'lhs_contracting_dim\w*(?:=\{|":\[)([^\]}]*)')
        lengths = [arrays[0].shape[int(n)] for n in re.findall(r"\d+", axes)]
        return 2 * out.elements * math.prod(lengths)
    labels = instruction.find(r"dim_labels=\w+_(\w+)->")
    if opcode == "custom-call" and not (_CUDNN in text and labels):
        return 0
    # cuDNN computes any of a convolution's three arrays from the other two.
    output, kernel = out, arrays[1]
    if "BackwardFilter" in text:
        output, kernel = arrays[1], out
    elif "BackwardInput" in text:
        output = arrays[0]
    taps = kernel.elements // max(1, kernel.shape[labels.index("o")])
    spaced = instruction.find(r"lhs_dilate=([\dx]+)")
    holes = math.prod(int(n) for n in spaced.split("x")) if spaced else 1
    return 2 * output.elements * taps // holes
