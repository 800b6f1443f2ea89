"""How a coreset's numbers are stored in its file, and the bytes that they take.

=========  =====================  ========================  =================
storage    images                 labels                    labels of views
=========  =====================  ========================  =================
float32    float32                float32                   float16
float16    float16                float16                   float16
int8       int8, a scale for each  int8, a scale for each    uint8, in 1/255
=========  =====================  ========================  =================

Of a view's labels, the ``top_k`` largest may be stored alone. What they leave of the
total of one is spread evenly over the other classes; tags that are left out are zero.
Images and labels that were read are stored with the same values again.
"""

import io
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer, UInt
from numpy.lib import format as npy

# A quantised image reaches from -127 to 127 scales.
_LEVELS = 127
# The smallest scale, in standard deviations of a spectrogram.
_LEAST_SCALE = 2.0**-10
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
    if storage != "int8":
        return {f"{name}s": values.astype(storage)}
    axes = tuple(range(1, values.ndim))
    largest = np.abs(values).max(axes, keepdims=True) / _LEVELS
    most = float(np.finfo(np.float16).max)
    # With 11 bits, products with integers to 127 are exact in float32.
    scale = np.clip(largest, _LEAST_SCALE, most).astype(np.float16)
    levels = np.rint(values / scale.astype(np.float32))
    levels = np.clip(levels, -_LEVELS, _LEVELS).astype(np.int8)
    return {f"{name}s": levels, f"{name}_scale": scale.reshape(-1)}


def decode(name: str, arrays: Mapping[str, np.ndarray]) -> Float[np.ndarray, "s ..."]:
    """Returns the values of ``images`` or ``labels`` in float32.

    Raises:
      KeyError, ValueError: the arrays are damaged.
    """
    stored = arrays[f"{name}s"]
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
    return decode(name, encode(name, values, storage))


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
    if storage != "int8":
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
