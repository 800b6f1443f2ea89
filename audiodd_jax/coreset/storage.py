"""How a coreset's numbers are stored in its file, and the bytes that they take.

=========  =====================  ========================  =================
storage    images                 labels                    labels of views
=========  =====================  ========================  =================
float32    float32                float32                   float16
float16    float16                float16                   float16
int8       int8, a scale for each  int8, a scale for each    uint8, in 1/255
int4       two in a byte, a scale  int8, a scale for each    uint8, in 1/255
           and a lowest value
int2       four in a byte, alike   int8, a scale for each    uint8, in 1/255
=========  =====================  ========================  =================

Of a view's labels, the ``top_k`` largest may be stored alone. What they leave of the
total of one is spread evenly over the other classes; tags that are left out are zero.
Images and labels that were read are stored with the same values again.
"""

import functools
import io
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer, UInt
from numpy.lib import format as npy

# The kinds of storage in integers.
INTEGERS = ("int8", "int4", "int2")
# A quantised image reaches from -127 to 127 scales.
_LEVELS = 127
# The smallest scale, in standard deviations of a spectrogram.
LEAST_SCALE = 2.0**-10
# Bits of images that are packed into bytes along mel bins.
BITS = {"int4": 4, "int2": 2}
_LARGEST_HALF = float(np.finfo(np.float16).max)
_SHARES = 255
# Bytes of a zip archive per member, without its name (twice) and content, and at last.
_MEMBER, _END = 30 + 20 + 46, 22
_IMAGES = ("images", "image_scale")
OF_VIEWS = ("teacher_labels", "teacher_classes")
_LABELS = ("labels", "label_scale", *OF_VIEWS)
# The arrays of numbers.
NAMES = (*_IMAGES, *_LABELS)


class Bytes(NamedTuple):
    """The bytes of a coreset's file."""

    images: int
    labels: int
    rest: int

    @property
    def total(self) -> int:
        """The size of the file."""
        return sum(self)


def count(arrays: Mapping[str, np.ndarray]) -> Bytes:
    """Returns the exact size of the ``.npz`` of some arrays, without writing it."""
    size = lambda names: sum(arrays[n].nbytes for n in names if n in arrays)
    images, labels = size(_IMAGES), size(_LABELS)
    total = _END
    for name, array in arrays.items():
        header = io.BytesIO()
        npy.write_array_header_1_0(header, npy.header_data_from_array_1_0(array))
        total += _MEMBER + 2 * len(f"{name}.npy") + header.tell() + array.nbytes
    return Bytes(images, labels, total - images - labels)


def encode(
    name: str, values: Float[np.ndarray, "s ..."], storage: str
) -> dict[str, np.ndarray]:
    """Returns the arrays that store ``images`` or ``labels``, by their names."""
    if name == "image" and storage in BITS:
        return _encode_bits(values, BITS[storage])
    if storage not in INTEGERS:
        return {f"{name}s": values.astype(storage)}
    axes = tuple(range(1, values.ndim))
    largest = np.abs(values).max(axes, keepdims=True) / _LEVELS
    # With 11 bits, products with integers to 127 are exact in float32.
    scale = np.clip(largest, LEAST_SCALE, _LARGEST_HALF).astype(np.float16)
    levels = np.rint(values / scale.astype(np.float32))
    levels = np.clip(levels, -_LEVELS, _LEVELS).astype(np.int8)
    return {f"{name}s": levels, f"{name}_scale": scale.reshape(-1)}


def _encode_bits(
    images: Float[np.ndarray, "s f t 1"], bits: int
) -> dict[str, np.ndarray]:
    """Returns the arrays of images in a few bits, from the lowest value of each."""
    images = np.clip(images, -_LARGEST_HALF, _LARGEST_HALF)
    axes, steps = (1, 2, 3), 2**bits - 1
    lowest = images.min(axes, keepdims=True).astype(np.float16)
    # The lowest value may be rounded by half of a scale at most: then images that were
    # read are stored again as they were.
    least = np.maximum(LEAST_SCALE, np.abs(lowest.astype(np.float32)) * LEAST_SCALE)
    reach = images.max(axes, keepdims=True) - lowest.astype(np.float32)
    scale = np.clip(reach / steps, least, _LARGEST_HALF).astype(np.float16)
    levels = np.rint((images - lowest) / scale.astype(np.float32))
    levels = np.clip(levels, 0, steps).astype(np.uint8)
    in_byte = 8 // bits
    missing = -levels.shape[1] % in_byte
    levels = np.pad(levels, ((0, 0), (0, missing), (0, 0), (0, 0)))
    parts = (levels[:, i::in_byte] << i * bits for i in range(in_byte))
    numbers = np.concatenate([scale, lowest], 1).reshape(-1, 2)
    return {"images": functools.reduce(np.bitwise_or, parts), "image_scale": numbers}


def _decode_bits(
    packed: UInt[np.ndarray, "s f t 1"], numbers: Float[np.ndarray, "s 2"], bits: int
) -> Float[np.ndarray, "s f2 t 1"]:
    parts = [packed >> i * bits & 2**bits - 1 for i in range(8 // bits)]
    levels = np.stack(parts, 2).astype(np.float32)
    levels = levels.reshape(len(packed), -1, *packed.shape[2:])
    scale, lowest = (column.reshape(-1, 1, 1, 1) for column in numbers.T)
    return lowest.astype(np.float32) + scale.astype(np.float32) * levels


def like_images(shape: tuple[int, ...], storage: str) -> dict[str, np.ndarray]:
    """Returns arrays of the shapes and types in which images ``[s, f, t, 1]`` are."""
    s, f, *rest = shape
    array = lambda kind, *shape: np.broadcast_to(np.zeros((), kind), shape)
    if storage not in INTEGERS:
        return {"images": array(storage, *shape)}
    if storage in BITS:
        packed = array(np.uint8, s, -(-f * BITS[storage] // 8), *rest)
        return {"images": packed, "image_scale": array(np.float16, s, 2)}
    return {"images": array(np.int8, *shape), "image_scale": array(np.float16, s)}


def decode(
    name: str, arrays: Mapping[str, np.ndarray], storage: str
) -> Float[np.ndarray, "s ..."]:
    """Returns the values of ``images`` or ``labels`` in float32.

    Images in less than a byte have more mel bins where these do not fill whole bytes.

    Raises:
      KeyError, ValueError: the arrays are damaged.
    """
    stored = arrays[f"{name}s"]
    if stored.dtype == np.uint8 and name == "image":
        return _decode_bits(stored, arrays["image_scale"], BITS[storage])
    if stored.dtype not in (np.float32, np.float16, np.int8):
        raise ValueError(f"{name}s of the type {stored.dtype}")
    values = stored.astype(np.float32)
    if stored.dtype != np.int8:
        return values
    scale = arrays[f"{name}_scale"]
    return values * scale.astype(np.float32).reshape(-1, *(1,) * (values.ndim - 1))


def read_back(
    name: str, values: Float[np.ndarray, "s ..."], storage: str
) -> Float[np.ndarray, "s ..."]:
    """Returns ``images`` or ``labels`` as a file gives them back."""
    arrays = encode(name, values, storage)
    return decode(name, arrays, storage)[:, : values.shape[1]]


def encode_views(
    probabilities: Float[np.ndarray, "k c"], storage: str, top_k: int, has_tags: bool
) -> dict[str, np.ndarray]:
    """Returns the arrays that store the labels of views, by their names.

    The smallest type of integers that holds a class numbers the largest labels. In
    integers, labels of classes are rounded so that their sums are.
    """
    arrays, values = {}, probabilities
    num_classes = probabilities.shape[1]
    if 0 < top_k < num_classes:
        rows = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
        values = np.take_along_axis(probabilities, rows, 1)
        arrays["teacher_classes"] = rows.astype(np.min_scalar_type(num_classes - 1))
    if storage not in INTEGERS:
        return {"teacher_labels": values.astype(np.float16), **arrays}
    shares = _SHARES * values.astype(np.float64)
    if not has_tags:
        shares = np.minimum(np.rint(np.cumsum(shares, 1)), _SHARES)
        shares = np.diff(shares, axis=1, prepend=0)
    return {"teacher_labels": np.rint(shares).astype(np.uint8), **arrays}


def decode_views(
    arrays: Mapping[str, np.ndarray], num_classes: int, has_tags: bool
) -> Float[np.ndarray, "k c"] | None:
    """Returns the labels of views in float16; None without a teacher.

    Raises:
      ValueError: the arrays are damaged.
    """
    if (values := arrays.get("teacher_labels")) is None:
        return None
    if values.dtype not in (np.float16, np.uint8):
        raise ValueError(f"labels of views of the type {values.dtype}")
    if values.dtype == np.uint8:
        values = values.astype(np.float32) / _SHARES
    if (rows := arrays.get("teacher_classes")) is None:
        return values.astype(np.float16)
    if rows.dtype.kind != "u" or rows.max(initial=0) >= num_classes:
        raise ValueError("labels of views are of classes that do not exist")
    values = values.astype(np.float32)
    left = np.maximum(1 - values.sum(1), 0) / max(1, num_classes - values.shape[1])
    result = np.repeat(left[:, None] * (not has_tags), num_classes, 1)
    np.put_along_axis(result, rows.astype(int), values, 1)
    return result.astype(np.float16)


def pack_text(text: str) -> UInt[np.ndarray, " bytes"]:
    """Returns compressed text as an array of bytes."""
    return np.frombuffer(zlib.compress(text.encode(), 9), np.uint8)


def smallest(values: Integer[np.ndarray, "..."]) -> UInt[np.ndarray, "..."]:
    """Returns integers from 0 in their smallest unsigned type."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))
