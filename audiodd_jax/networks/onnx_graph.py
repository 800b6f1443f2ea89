"""ONNX models as pure, differentiable functions of JAX arrays.

``read`` returns a model's nodes and weights, and ``function`` evaluates them, from one
tensor to another. ``OPERATORS`` has what convolutional networks consist of. Others are
refused by name.
"""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from audiodd_jax.errors import UserError
from audiodd_jax.networks.convolution import valid

Value = Array | np.ndarray
Operator = Callable[..., Value]


class Node(NamedTuple):
    """An operator, its attributes, and the names of its inputs and outputs."""

    operator: str
    attributes: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Graph(NamedTuple):
    """A model.

    Attributes:
      nodes: in an order in which they can be evaluated.
      weights: arrays by name.
      inputs: shapes of the inputs by name; -1 for sizes that vary.
      outputs: names of the outputs.
      digest: digest of the weights.
    """

    nodes: tuple[Node, ...]
    weights: dict[str, np.ndarray]
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    digest: str


def read(path: Path) -> Graph:
    """Reads an ONNX file.

    Raises:
      UserError: the package ``onnx`` is missing, or the file is not a model.
    """
    try:
        import onnx
    except ImportError as error:
        raise UserError(
            f"reading {path.name} needs the package onnx: pip install onnx, or "
            "audiodd_jax[encoders]"
        ) from error
    if not path.is_file():
        raise UserError(f"there is no ONNX file {path}")
    try:
        graph = onnx.load(path).graph
    except Exception as error:  # protobuf has many
        raise UserError(f"{path} is not an ONNX model: {error}") from error
    array = onnx.numpy_helper.to_array
    weights = {tensor.name: array(tensor) for tensor in graph.initializer}

    def attribute(given: Any) -> Any:
        value = onnx.helper.get_attribute_value(given)
        return array(value) if isinstance(value, onnx.TensorProto) else value

    nodes = []
    for node in graph.node:
        attributes = {one.name: attribute(one) for one in node.attribute}
        if node.op_type == "Constant":
            weights[node.output[0]] = np.asarray(next(iter(attributes.values())))
        else:
            names = tuple(node.input), tuple(node.output)
            nodes.append(Node(node.op_type, attributes, *names))
    inputs = {
        one.name: tuple(side.dim_value or -1 for side in one.type.tensor_type.shape.dim)
        for one in graph.input
        if one.name not in weights
    }
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].tobytes())
    names = tuple(one.name for one in graph.output)
    return Graph(tuple(nodes), weights, inputs, names, digest.hexdigest()[:16])


def function(
    graph: Graph, source: str = "", target: str = ""
) -> Callable[[Float[Array, "b ..."]], Array]:
    """Returns the function of one tensor of the model to another.

    Args:
      source: name of the tensor that is given; empty: the model's input.
      target: name of the tensor that is computed; empty: the first output.

    Raises:
      UserError: a name is unknown, ``target`` does not follow from ``source``, or
        operators are not supported.
    """
    source = source or _only(graph.inputs)
    target = target or graph.outputs[0]
    nodes = _path(graph, source, target)
    lacking = sorted({node.operator for node in nodes} - set(OPERATORS))
    if lacking:
        raise UserError(
            f"the model has operators that are not supported: {', '.join(lacking)}; "
            "encoder.input and encoder.output name the tensors to begin and to end at"
        )

    def evaluate(x: Float[Array, "b ..."]) -> Array:
        values: dict[str, Value] = {**graph.weights, source: x}
        for node in nodes:
            # An empty name is an optional input that is not given.
            given = [values[name] if name else None for name in node.inputs]
            operator = functools.partial(OPERATORS[node.operator], node.attributes)
            if node.operator == "Shape":
                values[node.outputs[0]] = np.array(given[0].shape)
            elif any(isinstance(value, jax.Array) for value in given):
                values[node.outputs[0]] = operator(*given)
            else:  # of weights and shapes alone, such as the target of a Reshape
                with jax.ensure_compile_time_eval():
                    values[node.outputs[0]] = np.asarray(operator(*given))
        return values[target]

    return evaluate


def _only(inputs: dict[str, tuple[int, ...]]) -> str:
    if len(inputs) == 1:
        return next(iter(inputs))
    raise UserError(
        f"the model has {len(inputs)} inputs ({', '.join(inputs)}): encoder.input "
        "names the tensor of the spectrogram"
    )


def _path(graph: Graph, source: str, target: str) -> list[Node]:
    """Returns the nodes between two tensors, in order."""
    made_by = {name: node for node in graph.nodes for name in node.outputs}
    if source not in {*made_by, *graph.inputs}:
        raise UserError(f"the model has no tensor {source!r}")
    needed, waiting = {source}, [target]
    while waiting:
        name = waiting.pop()
        if name in needed or name in graph.weights or not name:
            continue
        if name not in made_by:
            is_known = name in graph.inputs
            reason = f"depends on {name!r}, too" if is_known else "does not exist"
            raise UserError(f"the tensor {target!r} of the model {reason}")
        needed.add(name)
        waiting += made_by[name].inputs
    return [
        node
        for node in graph.nodes
        if needed.intersection(node.outputs) and source not in node.outputs
    ]


def _convolve(attributes: dict, x: Value, kernel: Value, bias: Value | None = None):
    spatial = kernel.ndim - 2
    strides = attributes.get("strides", [1] * spatial)
    dilations = attributes.get("dilations", [1] * spatial)
    groups = attributes.get("group", 1)
    sides = kernel.shape[2:]
    extents = [(k - 1) * d + 1 for k, d in zip(sides, dilations, strict=True)]
    pads = _pads(attributes, x.shape[2:], extents, strides)
    x = jnp.pad(x, [(0, 0), (0, 0), *pads])
    if spatial == 2 and groups == 1 and {*strides, *dilations} == {1}:
        out = valid(x.transpose(0, 2, 3, 1), kernel.transpose(2, 3, 1, 0))
        out = out.transpose(0, 3, 1, 2)
    else:
        out = lax.conv_general_dilated(
            x,
            kernel,
            strides,
            "VALID",
            rhs_dilation=dilations,
            feature_group_count=groups,
            precision="highest",
        )
    return out if bias is None else out + bias.reshape(-1, *[1] * spatial)


def _pads(
    attributes: dict, sides: tuple[int, ...], extents: list[int], strides: list[int]
) -> list[tuple[int, int]]:
    """Returns the padding of each spatial axis, before and after."""
    kind = attributes.get("auto_pad", b"NOTSET").decode()
    if kind in ("SAME_UPPER", "SAME_LOWER"):
        pads = []
        for side, extent, stride in zip(sides, extents, strides, strict=True):
            total = max(0, (-(-side // stride) - 1) * stride + extent - side)
            half = (total, total // 2, total - total // 2)
            pads.append(half[1:] if kind == "SAME_UPPER" else half[:0:-1])
        return pads
    flat = attributes.get("pads", [0] * 2 * len(sides))
    return list(zip(flat[: len(sides)], flat[len(sides) :], strict=True))


def _pool(kind: str, attributes: dict, x: Value) -> Array:
    sides = attributes["kernel_shape"]
    strides = attributes.get("strides", [1] * len(sides))
    if attributes.get("ceil_mode") or {*attributes.get("dilations", [1])} != {1}:
        raise UserError(f"{kind}Pool with ceil_mode or dilations is not supported")
    pads = [(0, 0), (0, 0), *_pads(attributes, x.shape[2:], sides, strides)]
    window = (1, 1, *sides), (1, 1, *strides)
    if kind == "Max":
        if sides == strides and not any(map(sum, pads)):
            return _window_maximum(x, sides)
        return lax.reduce_window(x, -jnp.inf, lax.max, *window, pads)
    total = lax.reduce_window(x, 0.0, lax.add, *window, pads)
    if attributes.get("count_include_pad"):
        return total / np.prod(sides)
    ones = jnp.ones((1, 1, *x.shape[2:]), x.dtype)
    return total / lax.reduce_window(ones, 0.0, lax.add, *window, pads)


def _window_maximum(x: Value, sides: list[int]) -> Array:
    """Maximum of windows side by side, whose gradient is fast on CPU."""
    shape, axes = [*x.shape[:2]], []
    for axis, side in enumerate(sides):
        x = lax.slice_in_dim(x, 0, x.shape[2 + axis] // side * side, axis=2 + axis)
        axes.append(len(shape) + 1)
        shape += [x.shape[2 + axis] // side, side]
    return x.reshape(shape).max(axes)


def _reduce(reduce: Callable, attributes: dict, x: Value, axes: Any = None) -> Array:
    axes = attributes.get("axes") if axes is None else tuple(map(int, axes))
    axes = None if axes is None else tuple(axes)
    return reduce(x, axis=axes, keepdims=bool(attributes.get("keepdims", 1)))


def _reshape(attributes: dict, x: Value, shape: np.ndarray) -> Value:
    sides = [x.shape[i] if side == 0 else int(side) for i, side in enumerate(shape)]
    return x.reshape(sides)


def _axes(attributes: dict, axes: Any) -> tuple[int, ...]:
    return tuple(map(int, attributes.get("axes", ()) if axes is None else axes))


def _squeeze(attributes: dict, x: Value, axes: Any = None) -> Value:
    return jnp.squeeze(x, _axes(attributes, axes) or None)


def _pad(attributes: dict, x: Value, pads: Any = None, value: Any = None, *_) -> Value:
    pads = attributes.get("pads") if pads is None else pads
    mode = attributes.get("mode", b"constant").decode()
    ends = [(int(a), int(b)) for a, b in np.reshape(pads, (2, -1)).T]
    if mode != "constant":
        return jnp.pad(x, ends, mode=mode)
    constant = attributes.get("value", 0.0) if value is None else float(value)
    return jnp.pad(x, ends, constant_values=constant)


def _batch_norm(
    attributes: dict, x: Value, scale: Value, bias: Value, mean: Value, variance: Value
) -> Array:
    deviation = np.sqrt(variance + attributes.get("epsilon", 1e-5))
    shape = (-1, *[1] * (x.ndim - 2))
    return (x - mean.reshape(shape)) * (scale / deviation).reshape(shape) + (
        bias.reshape(shape)
    )


def _gemm(attributes: dict, a: Value, b: Value, c: Any = 0.0) -> Array:
    a = a.T if attributes.get("transA") else a
    b = b.T if attributes.get("transB") else b
    product = jnp.dot(a, b, precision="highest")
    return attributes.get("alpha", 1.0) * product + attributes.get("beta", 1.0) * c


def _clip(attributes: dict, x: Value, low: Any = None, high: Any = None) -> Array:
    low = attributes.get("min") if low is None else low
    return jnp.clip(x, low, attributes.get("max") if high is None else high)


def _slice(attributes: dict, x: Value, *given: Any) -> Value:
    names = ("starts", "ends", "axes", "steps")
    starts, ends, axes, steps = (
        given[i] if i < len(given) and given[i] is not None else attributes.get(name)
        for i, name in enumerate(names)
    )
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    parts = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        parts[int(axis)] = slice(int(start), int(end), int(step))
    return x[tuple(parts)]


def _flatten(attributes: dict, x: Value) -> Value:
    axis = attributes.get("axis", 1)
    return x.reshape(int(np.prod(x.shape[:axis], dtype=int)), -1)


def _plain(function: Callable) -> Operator:
    """An operator without attributes."""
    return lambda _, *given: function(*given)


def _of_space(reduce: Callable) -> Operator:
    """A global pooling."""
    return lambda _, x: reduce(x, axis=tuple(range(2, x.ndim)), keepdims=True)


_matmul = functools.partial(jnp.matmul, precision="highest")
_TYPES = {1: jnp.float32, 6: jnp.int32, 7: jnp.int32, 9: jnp.bool_}

OPERATORS: dict[str, Operator] = {
    "Conv": _convolve,
    "BatchNormalization": _batch_norm,
    "Gemm": _gemm,
    "MatMul": _plain(_matmul),
    "MaxPool": functools.partial(_pool, "Max"),
    "AveragePool": functools.partial(_pool, "Average"),
    "GlobalAveragePool": _of_space(jnp.mean),
    "GlobalMaxPool": _of_space(jnp.max),
    "ReduceMean": functools.partial(_reduce, jnp.mean),
    "ReduceMax": functools.partial(_reduce, jnp.max),
    "ReduceSum": functools.partial(_reduce, jnp.sum),
    "Relu": _plain(jax.nn.relu),
    "LeakyRelu": lambda a, x: jax.nn.leaky_relu(x, a.get("alpha", 0.01)),
    "Elu": lambda a, x: jax.nn.elu(x, a.get("alpha", 1.0)),
    "HardSigmoid": lambda a, x: jnp.clip(
        a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0, 1
    ),
    "HardSwish": _plain(jax.nn.hard_swish),
    "Sigmoid": _plain(jax.nn.sigmoid),
    "Tanh": _plain(jnp.tanh),
    "Softplus": _plain(jax.nn.softplus),
    "Softmax": lambda a, x: jax.nn.softmax(x, a.get("axis", -1)),
    "Clip": _clip,
    "Exp": _plain(jnp.exp),
    "Log": _plain(jnp.log),
    "Sqrt": _plain(jnp.sqrt),
    "Abs": _plain(jnp.abs),
    "Neg": _plain(jnp.negative),
    "Pow": _plain(jnp.power),
    "Add": _plain(jnp.add),
    "Sub": _plain(jnp.subtract),
    "Mul": _plain(jnp.multiply),
    "Div": _plain(jnp.divide),
    "Max": _plain(lambda *x: functools.reduce(jnp.maximum, x)),
    "Min": _plain(lambda *x: functools.reduce(jnp.minimum, x)),
    "Concat": lambda a, *x: jnp.concatenate(x, a["axis"]),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": lambda a, x: jnp.transpose(x, a.get("perm")),
    "Squeeze": _squeeze,
    "Unsqueeze": lambda a, x, axes=None: jnp.expand_dims(x, _axes(a, axes)),
    "Pad": _pad,
    "Slice": _slice,
    "Gather": lambda a, x, rows: jnp.take(x, rows, axis=a.get("axis", 0)),
    "Shape": _plain(np.shape),
    "Cast": lambda a, x: x.astype(_TYPES[a["to"]]),
    "Identity": _plain(lambda x: x),
    "Dropout": _plain(lambda x, *_: x),
}
