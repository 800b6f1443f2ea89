"""Two-dimensional convolution whose gradients are fast on every platform.

XLA:CPU runs the two transposes that JAX derives from a convolution on a naive path that
is 10 to 40 times slower than the convolution itself. Here the input's gradient is a
convolution with the reversed kernel, and the kernel's gradient is a set of matrix
products. Accelerators use JAX's own transposes. BUILD_NOTES.md and
experiments/results/speed.md have the measurements.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from audiodd_jax.networks import few_rows, winograd

# With fewer output positions XLA:CPU convolves on its naive path, which is 30 to 200
# times slower than the product of patches and kernel.
_LEAST_POSITIONS = 16
# XLA:CPU passes convolutions with more channels to YNNPACK.
_YNNPACK_CHANNELS = 16
# Output positions of the images whose patches are gathered at once, few enough to stay
# in cache. One channel takes a ninth of the memory; more positions do not pay.
_POSITIONS = 2048
_POSITIONS_OF_ONE_CHANNEL = 2**17

Input = Float[Array, "b f t channels_in"]
Kernel = Float[Array, "k k channels_in w"]
Output = Float[Array, "b f2 t2 w"]


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
    """Transpose of ``convolve`` with respect to its input, ``(f, t)`` large.

    With stride 1 it is a convolution with the reversed kernel. For one input channel,
    and for larger strides, one matrix product with the kernel's taps and a sum of their
    shifts takes a half to a fifth of the time. ``on_cpu`` takes the paths that are fast
    with XLA:CPU only.
    """
    k, _, channels, _ = kernel.shape
    if stride == 1 and channels > 1:
        reverse = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
        if not on_cpu:
            return convolve(ct, reverse, precision=precision)
        if few_rows.pays(image_shape[0], k, stride):
            return few_rows.convolve(ct, reverse, precision)
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


def kernel_gradient(x: Input, ct: Output, k: int, stride: int = 1) -> Kernel:
    """Transpose of ``convolve`` with respect to its kernel, fast on XLA:CPU.

    It takes a few images at a time, because the patches of a whole batch would not fit
    the caches. With stride 1, shifts along frequency are gathered from the input and
    shifts along time from the output's gradient: a 3x3 kernel takes twice three copies
    instead of nine.
    """
    channels, w = x.shape[3], ct.shape[3]
    wide = jnp.promote_types(ct.dtype, jnp.float32)  # accumulates bfloat16
    if few_rows.pays(x.shape[1], k, stride):
        return few_rows.kernel_gradient(x, ct, k, wide).astype(x.dtype)

    def product(rows: Array, ct: Array) -> Array:
        return jnp.dot(rows, ct, preferred_element_type=wide)

    def by_taps(x: Array, ct: Array) -> Array:
        # Tap by tap, which copies whole rows.
        rows = jnp.stack(_shifted(x[..., 0], k, stride)).reshape(k * k, -1)
        return product(rows, ct.reshape(-1, w))

    def by_shifts(x: Array, ct: Array) -> Array:
        # Tap (u, v) sums x[f + u, t + v] ct[f, t], which is x[f + u, t] ct[f, t - v].
        _, f, t, _ = x.shape
        half = k // 2
        x = jnp.pad(x, ((0, 0), (half, half), (0, 0), (0, 0)))
        ct = jnp.pad(ct, ((0, 0), (0, 0), (half, half), (0, 0)))
        rows = jnp.concatenate([x[:, u : u + f] for u in range(k)], axis=-1)
        starts = range(k - 1, -1, -1)
        columns = jnp.concatenate([ct[:, :, v : v + t] for v in starts], axis=-1)
        rows, columns = rows.reshape(-1, k * channels), columns.reshape(-1, k * w)
        total = product(rows.T, columns).reshape(k, channels, k, w)
        return total.transpose(0, 2, 1, 3)

    def by_patches(x: Array, ct: Array) -> Array:
        rows = _patches(x, k, stride).reshape(-1, k * k * channels)
        return product(ct.reshape(-1, w).T, rows).T

    positions, part = _POSITIONS, by_patches
    if channels == 1:
        positions, part = _POSITIONS_OF_ONE_CHANNEL, by_taps
    elif stride == 1:
        part = by_shifts
    shaped = lambda x, ct: part(x, ct).reshape(k, k, channels, w)
    total = _sum_over_images(shaped, x, ct, positions)
    return total.astype(x.dtype)


def _sum_over_images(
    part: Callable[[Array, Array], Array], x: Array, ct: Array, positions: int
) -> Array:
    """Sums ``part`` over images, about ``positions`` output positions at a time."""
    b, f2, t2, _ = ct.shape
    size = min(b, max(1, positions // (f2 * t2)))
    whole = b // size
    split = lambda a: a[: whole * size].reshape(whole, size, *a.shape[1:])
    add = lambda total, images: (total + part(*images), None)
    like = jax.eval_shape(part, x[:size], ct[:size])
    zeros = jnp.zeros(like.shape, like.dtype)
    total, _ = lax.scan(add, zeros, (split(x), split(ct)))
    if whole * size < b:
        total += part(x[whole * size :], ct[whole * size :])
    # Without the barrier XLA transposes the product in some programs only, and a seed's
    # bits would depend on how many seeds are trained together.
    return lax.optimization_barrier(total)


def _patches(x: Input, k: int, stride: int) -> Float[Array, "b f2 t2 taps"]:
    """Gathers the ``k k channels_in`` inputs of each output position."""
    return jnp.concatenate(_shifted(x, k, stride), axis=-1)


def _shifted(x: Array, k: int, stride: int) -> list[Array]:
    """Returns the inputs that each of the ``k k`` taps reads, at all positions."""
    half = k // 2
    rows, columns = ((side - 1) // stride * stride + 1 for side in x.shape[1:3])
    x = jnp.pad(x, [(0, 0), (half, half), (half, half), *[(0, 0)] * (x.ndim - 3)])
    return [
        x[:, u : u + rows : stride, v : v + columns : stride]
        for u in range(k)
        for v in range(k)
    ]


def _products(
    x: Input, kernel: Kernel, stride: int = 1, precision: lax.Precision | None = None
) -> Output:
    """``convolve`` as a single matrix product, fast on XLA:CPU for small outputs."""
    k, _, _, w = kernel.shape
    rows = _patches(x, k, stride)
    return jnp.dot(rows, kernel.reshape(-1, w), precision=precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: Input, kernel: Kernel, stride: int = 1) -> Output:
    """``convolve`` with gradients of any order that are fast on every platform.

    A convolution and its two transposes are the gradients of each other.
    """
    plain = functools.partial(_by_type, stride=stride)
    out = jax.eval_shape(plain, x, kernel)
    on_cpu = functools.partial(_products, stride=stride)
    if few_rows.pays(x.shape[1], kernel.shape[0], stride):
        on_cpu = functools.partial(few_rows.convolve, precision=_of_type(x.dtype))
    elif stride == 1 and x.dtype != jnp.bfloat16 and winograd.pays(x, kernel):
        on_cpu = winograd.convolve
    elif out.shape[1] * out.shape[2] >= _LEAST_POSITIONS:
        if stride > 1:
            return plain(x, kernel)
        on_cpu = functools.partial(on_all_cores, precision=_of_type(x.dtype))
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
    return convolve(x, kernel, stride, _of_type(x.dtype))


def _of_type(dtype: DTypeLike) -> lax.Precision | None:
    """Returns the precision of products of a type: no platform rounds float32."""
    return None if dtype == jnp.bfloat16 else lax.Precision.HIGHEST


@jax.custom_vjp
def valid(x: Input, kernel: Float[Array | np.ndarray, "u v channels_in w"]) -> Output:
    """Convolution with a constant kernel of any size, without padding.

    Differentiable in ``x``; no gradient flows to the kernel.
    """
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )


def _valid_backward(kernel, ct):
    u, v = (side - 1 for side in kernel.shape[:2])
    padded = jnp.pad(ct, ((0, 0), (u, u), (v, v), (0, 0)))
    grad = valid(padded, jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    return grad, jnp.zeros_like(kernel)


valid.defvjp(lambda x, kernel: (valid(x, kernel), kernel), _valid_backward)


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
