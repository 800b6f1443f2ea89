"""Two-dimensional convolution whose gradients are fast on every platform.

XLA:CPU runs the two transposes that JAX derives from a convolution on a naive path that
is 10 to 40 times slower than the convolution itself. Here the input's gradient is a
convolution with the reversed kernel, and the kernel's gradient is a set of matrix
products (``kernel_gradient.py``). Accelerators use JAX's own transposes. BUILD_NOTES.md
has the measurements.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array

from audiodd_jax.networks import winograd
from audiodd_jax.networks.kernel_gradient import (
    Input,
    Kernel,
    Output,
    kernel_gradient,
    patches,
)

# With fewer output positions XLA:CPU convolves on its naive path, which is 30 to 200
# times slower than the product of patches and kernel.
_LEAST_POSITIONS = 16
# XLA:CPU passes convolutions with more channels to YNNPACK.
_YNNPACK_CHANNELS = 16


def convolve(
    x: Input,
    kernel: Kernel,
    stride: int = 1,
    precision: lax.Precision | None = None,
    extra: int = 0,
) -> Output:
    """Convolution with a kernel of odd size, padding SAME: ``ceil(f / stride)`` rows.

    With ``precision=None`` the products have the platform's default precision.
    ``extra`` columns of zeros are appended to the padding.
    """
    half = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((half, half), (half, half + extra)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def on_all_cores(
    x: Input, kernel: Kernel, precision: lax.Precision | None = None
) -> Output:
    """``convolve`` with stride 1, on all cores with XLA:CPU.

    XLA of jax 0.10 passes such convolutions to YNNPACK, which runs each on one core,
    unless the output is larger than the input: here an extra column is computed and
    dropped. With a single input channel that costs more than it gains.
    """
    channels, w = kernel.shape[2:]
    if channels == 1 or max(channels, w) <= _YNNPACK_CHANNELS:
        return convolve(x, kernel, precision=precision)
    return convolve(x, kernel, 1, precision, extra=1)[:, :, : x.shape[2]]


def input_gradient(
    ct: Output,
    kernel: Kernel,
    image_shape: tuple[int, int],
    stride: int = 1,
    precision: lax.Precision | None = None,
    on_cpu: bool = True,
) -> Input:
    """Transpose of ``convolve`` with respect to its input, fast on XLA:CPU.

    With stride 1 it is a convolution with the reversed kernel. For one input channel,
    and for larger strides, one matrix product with the kernel's taps and a sum of their
    shifts takes a half to a fifth of the time.

    Args:
      image_shape: ``(f, t)`` of the input.
      on_cpu: take the paths that are fast on CPU only.
    """
    k, _, channels, _ = kernel.shape
    if stride == 1 and channels > 1:
        reverse = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
        if not on_cpu:
            return convolve(ct, reverse, precision=precision)
        if winograd.pays(ct, reverse):
            return winograd.convolve(ct, reverse)
        few = ct.shape[1] * ct.shape[2] < _LEAST_POSITIONS
        product = _products if few else on_all_cores
        return product(ct, reverse, precision=precision)
    wide = jnp.promote_types(ct.dtype, jnp.float32)  # accumulates bfloat16
    taps = jnp.einsum(
        "bftw,uviw->bftuvi",
        ct,
        kernel,
        precision=precision,
        preferred_element_type=wide,
    )
    half = k // 2
    total = jnp.zeros((), wide)
    for u in range(k):
        for v in range(k):
            # Positions of tap (u, v) in the padded input.
            spread = [(0, 0, 0)]
            for first, out, size in zip(
                (u, v), ct.shape[1:3], image_shape, strict=True
            ):
                last = size + 2 * half - first - (stride * (out - 1) + 1)
                spread.append((first, last, stride - 1))
            zero = jnp.zeros((), wide)
            total += lax.pad(taps[:, :, :, u, v], zero, (*spread, (0, 0, 0)))
    f, t = image_shape
    return total[:, half : half + f, half : half + t]


def _products(
    x: Input, kernel: Kernel, stride: int = 1, precision: lax.Precision | None = None
) -> Output:
    """``convolve`` as a single matrix product, fast on XLA:CPU for small outputs."""
    k, _, _, w = kernel.shape
    rows = patches(x, k, stride)
    return jnp.dot(rows, kernel.reshape(-1, w), precision=precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: Input, kernel: Kernel, stride: int = 1) -> Output:
    """``convolve`` with gradients of any order that are fast on every platform.

    A convolution and its two transposes are the gradients of each other.
    """
    plain = functools.partial(_by_type, stride=stride)
    out = jax.eval_shape(plain, x, kernel)
    on_cpu = functools.partial(_products, stride=stride)
    if out.shape[1] * out.shape[2] >= _LEAST_POSITIONS:
        if stride > 1:
            return plain(x, kernel)
        on_cpu = functools.partial(on_all_cores, precision=of_type(x.dtype))
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=plain)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _to_input(
    ct: Output, kernel: Kernel, image_shape: tuple[int, int], stride: int
) -> Input:
    """``input_gradient`` on CPU, JAX's own transpose elsewhere."""

    def derived(ct: Array, kernel: Array) -> Array:
        shape = (ct.shape[0], *image_shape, kernel.shape[2])
        return _transpose(lambda x: _by_type(x, kernel, stride), shape, ct)

    def written_out(ct: Array, kernel: Array) -> Array:
        return input_gradient(ct, kernel, image_shape, stride).astype(ct.dtype)

    return lax.platform_dependent(ct, kernel, cpu=written_out, default=derived)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _to_kernel(x: Input, ct: Output, k: int, stride: int) -> Kernel:
    """``kernel_gradient`` on CPU, JAX's own transpose elsewhere."""

    def derived(x: Array, ct: Array) -> Array:
        shape = (k, k, x.shape[3], ct.shape[3])
        return _transpose(lambda kernel: _by_type(x, kernel, stride), shape, ct)

    written_out = functools.partial(kernel_gradient, k=k, stride=stride)
    return lax.platform_dependent(x, ct, cpu=written_out, default=derived)


def _transpose(
    linear: Callable[[Array], Array], shape: tuple[int, ...], ct: Array
) -> Array:
    """Applies the transpose, derived by JAX, of a function of an array of ``shape``."""
    return jax.linear_transpose(linear, jax.ShapeDtypeStruct(shape, ct.dtype))(ct)[0]


def _by_type(x: Array, kernel: Array, stride: int) -> Array:
    """``convolve`` in the precision of the operands' type."""
    return convolve(x, kernel, stride, of_type(x.dtype))


def of_type(dtype: DTypeLike) -> lax.Precision | None:
    """Returns the precision of products of a type: no platform rounds float32."""
    return None if dtype == jnp.bfloat16 else lax.Precision.HIGHEST


def pointwise(x: Input, kernel: Kernel, stride: int) -> Output:
    """1x1 convolution, on CPU as a matrix product, which is six times faster there.

    On GPUs XLA would fuse the product with the strided slice, which crashes the
    compiler of jax 0.10.
    """

    def product(x: Array, kernel: Array) -> Array:
        return jnp.dot(x[:, ::stride, ::stride], kernel[0, 0])

    convolved = functools.partial(_by_type, stride=stride)
    return lax.platform_dependent(x, kernel, cpu=product, default=convolved)


def _keep_operands(function):
    """Forward pass of a bilinear function: its operands are the residuals."""
    return lambda a, b, *static: (function(a, b, *static), (a, b))


def _conv_backward(stride, residuals, ct):
    x, kernel = residuals
    return (
        _to_input(ct, kernel, x.shape[1:3], stride),
        _to_kernel(x, ct, kernel.shape[0], stride),
    )


def _to_input_backward(image_shape, stride, residuals, x):
    ct, kernel = residuals
    return conv(x, kernel, stride), _to_kernel(x, ct, kernel.shape[0], stride)


def _to_kernel_backward(k, stride, residuals, kernel):
    x, ct = residuals
    return _to_input(ct, kernel, x.shape[1:3], stride), conv(x, kernel, stride)


conv.defvjp(_keep_operands(conv), _conv_backward)
_to_input.defvjp(_keep_operands(_to_input), _to_input_backward)
_to_kernel.defvjp(_keep_operands(_to_kernel), _to_kernel_backward)
