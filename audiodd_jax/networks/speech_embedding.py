"""The speech embedding of Google in JAX, with weights that ``openwakeword`` brings.

Twenty convolutions, 3x3, then 1x3 over mel bins and 3x1 over time in turn, and five
poolings map 76 frames of 32 mel bins (0.76 s) to 96 values. No convolution over time is
padded, so that a longer spectrogram has an embedding every 8 frames, at a third of the
cost of its overlapping windows.

References:
  Lin et al., *Training Keyword Spotters with Limited and Synthesized Speech Data*,
  ICASSP 2020. The weights are those of https://tfhub.dev/google/speech_embedding/1
  (Apache-2.0), as in the wheel of openwakeword 0.4.0.
"""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from audiodd_jax.errors import UserError
from audiodd_jax.networks import onnx_graph
from audiodd_jax.networks.convolution import valid

WINDOW, HOP, FRAMES_PER_SECOND = 76, 8, 100
# The mel spectrogram in openwakeword's ``melspectrogram.onnx``.
FRONT_END = {
    "sample_rate": 16_000,
    "n_mels": 32,
    "window_seconds": 0.025,
    "n_fft": 512,
    "f_min": 60.0,
    "f_max": 3800.0,
    "mel_scale": "slaney",
    "top_db": 80.0,
    "clip_reference": "level",
}
# Its samples are 16-bit integers, and the network takes a tenth of the dB, plus 2.
_SCALE, _OFFSET = 0.1, 2 + 2 * np.log10(32_768.0)
# Pooling over time and mel bins after some convolutions.
_POOLS = {2: (2, 2), 6: (1, 2), 10: (2, 2), 14: (1, 2), 18: (2, 2)}
_LAST = 19
_EPSILON = 1e-3

# Kernel and bias of each convolution.
Weights = list[tuple[np.ndarray, np.ndarray]]


def file() -> Path:
    """Returns the model's file in the installed package.

    Raises:
      UserError: the package is not installed.
    """
    found = importlib.util.find_spec("openwakeword")
    if found is None:
        raise UserError(
            "the encoder speech_embedding reads its weights from the package "
            "openwakeword: pip install onnx, and pip install --no-deps "
            "openwakeword==0.4.0"
        )
    folder = Path(found.origin).parent / "resources" / "models"
    return folder / "embedding_model.onnx"


def load() -> tuple[Weights, str]:
    """Reads the weights; returns them with their digest.

    Raises:
      UserError: a package is missing, or the file has other weights.
    """
    path = file()
    graph = onnx_graph.read(path)
    given, prefix = graph.weights, "model/batch_normalization/"
    first = "model/conv2d/StatefulPartitionedCall/StatefulPartitionedCall/Conv2D"
    try:
        kernels = [given[f"{first}/ReadVariableOp:0"]]
        names = [f"model/conv2d_{i}/Conv2D" for i in range(1, _LAST)]
        kernels += [given[f"{name}_weights_fused_bn"] for name in names]
        kernels += [given[f"model/conv2d_{_LAST}/Conv2D/ReadVariableOp:0"]]
        biases = [given[f"{name}_bias_fused_bn"] for name in names]
        scale, bias, mean, variance = (
            given[f"{prefix}{name}:0"]
            for name in (
                "ReadVariableOp",
                "ReadVariableOp_1",
                "FusedBatchNormV3/ReadVariableOp",
                "FusedBatchNormV3/ReadVariableOp_1",
            )
        )
    except KeyError as error:
        raise UserError(
            f"{path} lacks the weights {error}: install openwakeword==0.4.0"
        ) from error
    # Batch normalisation after the first ReLU: its scale and shift.
    scale = scale / np.sqrt(variance + _EPSILON)
    of_first = np.stack([scale, bias - mean * scale])
    kernels = [np.ascontiguousarray(k.transpose(2, 3, 1, 0)) for k in kernels]
    shifts = [of_first, *biases, np.zeros(kernels[-1].shape[-1], np.float32)]
    return list(zip(kernels, shifts, strict=True)), graph.digest


def apply(
    weights: Weights, decibels: Float[Array, "b f t"]
) -> Float[Array, "b windows d"]:
    """Embeds spectrograms in dB, with an embedding every 8 frames.

    ``windows`` is ``(t - 76) // 8 + 1``.
    """
    x = (_SCALE * decibels + _OFFSET).swapaxes(1, 2)[..., None]
    for number, (kernel, shift) in enumerate(weights):
        if kernel.shape[1] > 1:  # over mel bins, which are padded
            x = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
        x = valid(x, kernel)
        x = jax.nn.relu(x) * shift[0] + shift[1] if number == 0 else x + shift
        if number < _LAST:
            x = jnp.maximum(jax.nn.leaky_relu(x, 0.2), -0.4)
        if number in _POOLS:
            x = _maximum(x, *_POOLS[number])
    return x[:, :, 0]


def _maximum(
    x: Float[Array, "b t f w"], time: int, mel: int
) -> Float[Array, "b t2 f2 w"]:
    """Maximum of windows side by side; the rest at the ends is left out."""
    b, t, f, w = x.shape
    t, f = t // time, f // mel
    x = x[:, : t * time, : f * mel].reshape(b, t, time, f, mel, w)
    return x.max((2, 4))
