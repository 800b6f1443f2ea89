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
_ROWS = 40
_SLICES = ("dynamic-slice", "gather", "slice")


class Array(NamedTuple):
    """The element type, shape and size of an array.

    ``bytes`` are those in the device's memory, with padding; 0 in a chip's own memory.
    """

    kind: str
    shape: tuple[int, ...]
    unpadded: int
    bytes: int


class Instruction(NamedTuple):
    """An instruction of a computation, whose result is that of the root.

    ``arrays`` are its results, ``operands`` names of other instructions, ``attributes``
    the text after the opcode, and ``fused`` the computation of a fusion.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    is_root: bool
    fused: dict[str, "Instruction"]

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
    kinds: list[str]
    host: list[str]
    functions: list[str]
    rows: list[list[Any]]


def account(text: str) -> Account:
    """Reads a program from ``Compiled.as_text``."""
    computations, entry = _parse(text)
    rows: list[list[Any]] = []
    collectives: dict[str, list[int]] = {}
    products: Counter[str] = Counter()
    host: set[str] = set()
    for instruction, computation, times in _executed(computations, entry, 1):
        parts = [(instruction, computation), *_inner(instruction)]
        flops = times * sum(_flops(part, where) for part, where in parts)
        size = times * _bytes(instruction, computation)
        if size or flops:
            origin = instruction.find(r'op_name="([^"]*)"')
            rows.append([size, flops, times, instruction.name, origin])
        for part, where in parts:
            opcode = part.opcode.removesuffix("-start")
            if opcode in _COLLECTIVES:
                arrays = [a for name in part.operands for a in where[name].arrays]
                count = collectives.setdefault(opcode, [0, 0])
                count[0] += times
                count[1] += times * sum(array.unpadded for array in arrays)
            if opcode in ("convolution", "dot") or _CUDNN in part.attributes:
                kind = where[part.operands[0]].arrays[0].kind
                precision = part.find(r"operand_precision=\{(\w+)") or "default"
                products[f"{kind} {precision}"] += 1
            if opcode in _HOST or "is_host_transfer=true" in part.attributes:
                host.add(opcode)
            if "callback" in (target := part.find(r'custom_call_target="([^"]*)"')):
                host.add(target)
    table = re.search(r"^FunctionNames\n((?:\d+ .*\n)*)", text, re.MULTILINE)
    return Account(
        sum(row[1] for row in rows),
        sum(row[0] for row in rows),
        collectives,
        dict(products),
        sorted(set(re.findall(r"\b([a-z]+\d+\w*|pred)\[", text))),
        sorted(host),
        re.findall(r'"(.*)"', table[1]) if table else [],
        sorted(rows, key=lambda row: -row[0])[:_ROWS],
    )


def _arrays(text: str) -> tuple[Array, ...]:
    """Returns the arrays of a type, which may be a tuple."""
    arrays = []
    for kind, sizes, layout in re.findall(r"(\w+)\[([\d,<=]*)\](\{[^}]*\})?", text):
        shape = tuple(int(n.strip("<=")) for n in sizes.split(",") if n)
        digits = re.search(r"\d+", kind)  # none in pred, token and opaque
        bits = int(digits[0]) if digits else 8 * (kind == "pred")
        padded = list(shape)
        order, _, tiles = layout.strip("{}").partition(":")
        if match := re.search(r"T\(([\d,]+)\)", tiles):
            minor = [int(n) for n in order.split(",") if n]
            tile = [int(n) for n in match[1].split(",")][::-1]
            for axis, size in zip(minor, tile, strict=False):
                padded[axis] = -(-padded[axis] // size) * size
        is_near = re.search(r"S\([1-9]", layout)
        size = 0 if is_near else math.prod(padded) * bits // 8
        arrays.append(Array(kind, shape, math.prod(shape) * (bits // 8), size))
    return tuple(arrays)


def _parse(text: str) -> tuple[dict[str, Computation], str]:
    """Returns the computations by name, and the name of the one that runs first."""
    computations: dict[str, Computation] = {}
    entry, current = "", {}
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if head and not line.startswith("HloModule"):
            current = computations[head[2]] = {}
            entry = head[2] if head[1] else entry
            continue
        match = re.match(r"\s+(ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)(\(.*)", line)
        if not match:
            continue
        root, name, kind, opcode, rest = match.groups()
        depth, end = 1, 1
        while depth and end < len(rest):
            depth += (rest[end] == "(") - (rest[end] == ")")
            end += 1
        operands = tuple(re.findall(r"%([\w.\-]+)", rest[:end]))
        called = re.search(r"calls=%([\w.\-]+)", rest) if opcode == "fusion" else None
        fused = computations.get(called[1], {}) if called else {}
        current[name] = Instruction(
            name, opcode, _arrays(kind), operands, rest, bool(root), fused
        )
    return computations, entry


def _executed(
    computations: dict[str, Computation], name: str, times: int
) -> Iterator[tuple[Instruction, Computation, int]]:
    """Yields the instructions that run, where, and how often."""
    for instruction in computations[name].values():
        yield instruction, computations[name], times
        called, trips = _called(instruction, computations)
        for inner in called:
            yield from _executed(computations, inner, times * trips)


def _called(
    instruction: Instruction, computations: dict[str, Computation]
) -> tuple[list[str], int]:
    """Returns what an instruction runs, unless as one kernel, and how often."""
    text, opcode = instruction.attributes, instruction.opcode
    if opcode in ("call", "async-start"):
        return re.findall(r"(?:to_apply|calls)=%([\w.\-]+)", text), 1
    if opcode == "conditional":
        branches = instruction.find(r"branch_computations=\{([^}]*)\}")
        names = re.findall(r"%([\w.\-]+)", branches)
        names += re.findall(r"(?:true|false)_computation=%([\w.\-]+)", text)
        # One branch runs: the longest represents it.
        return [max(names, key=lambda name: len(computations[name]))], 1
    if opcode != "while":
        return [], 1
    body = [instruction.find(r"body=%([\w.\-]+)")]
    if noted := instruction.find(r"known_trip_count\D+(\d+)"):
        return body, int(noted)
    condition = computations[instruction.find(r"condition=%([\w.\-]+)")]
    root = next(i for i in condition.values() if i.is_root)
    if root.opcode == "compare" and "direction=LT" in root.attributes:
        for operand in root.operands:
            limit = re.match(r"\((\d+)\)", condition[operand].attributes)
            if condition[operand].opcode == "constant" and limit:
                return body, int(limit[1])
    return body, 1


def _inner(instruction: Instruction) -> Iterator[tuple[Instruction, Computation]]:
    """Yields the instructions of a fusion, and of the fusions in it."""
    for inner in instruction.fused.values():
        yield inner, instruction.fused
        yield from _inner(inner)


def _bytes(instruction: Instruction, where: Computation) -> int:
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
        return _fusion_bytes(instruction, operands)
    return sum(operands) + instruction.bytes


def _fusion_bytes(fusion: Instruction, operands: list[int]) -> int:
    """Returns the bytes of a fusion, which may use only slices of its arrays."""
    fused, users = fusion.fused, {}
    for instruction in fused.values():
        for name in instruction.operands:
            users.setdefault(name, []).append(instruction)
    read, written = 0, fusion.bytes
    parameters = [i for i in fused.values() if i.opcode == "parameter"]
    parameters.sort(key=lambda i: int(i.find(r"(\d+)") or 0))
    for parameter, full in zip(parameters, operands, strict=False):
        part = 0 if parameter.name in users else full
        for reader in users.get(parameter.name, []):
            is_first = reader.operands[0] == parameter.name
            if is_first and reader.opcode in _SLICES:
                part += sum(array.unpadded for array in reader.arrays)
            elif not is_first or reader.opcode != "dynamic-update-slice":  # in place
                part = full
                break
        read += min(full, part)
    for instruction in fused.values():
        readers = users.get(instruction.name, [instruction])
        is_result = instruction.is_root or all(reader.is_root for reader in readers)
        if instruction.opcode == "dynamic-update-slice" and is_result:
            part = fused[instruction.operands[1]].bytes or instruction.bytes
            written -= max(0, min(instruction.bytes, written) - part)
    return read + max(0, written)


def _flops(instruction: Instruction, where: Computation) -> int:
    """Returns the operations of a convolution or a matrix product, otherwise 0."""
    text, opcode = instruction.attributes, instruction.opcode
    if opcode not in ("convolution", "dot", "custom-call"):
        return 0
    arrays = [where[name].arrays[0] for name in instruction.operands if name in where]
    out = instruction.arrays[0] if instruction.arrays else None
    if opcode == "dot" or _CUBLAS in text:
        axes = instruction.find(r'lhs_contracting_dim\w*(?:=\{|":\[)([^\]}]*)')
        lengths = [arrays[0].shape[int(n)] for n in re.findall(r"\d+", axes)]
        return 2 * math.prod([*out.shape, *lengths])
    labels = instruction.find(r"dim_labels=\w+_(\w+)->")
    if opcode == "custom-call" and not (_CUDNN in text and labels):
        return 0
    # cuDNN computes any of a convolution's three arrays from the other two.
    output, kernel = out, arrays[1]
    if "BackwardFilter" in text:
        output, kernel = arrays[1], out
    elif "BackwardInput" in text:
        output = arrays[0]
    taps = math.prod(kernel.shape) // max(1, kernel.shape[labels.index("o")])
    spaced = instruction.find(r"lhs_dilate=([\dx]+)")
    holes = math.prod(int(n) for n in spaced.split("x")) if spaced else 1
    return 2 * math.prod(output.shape) * taps // holes
