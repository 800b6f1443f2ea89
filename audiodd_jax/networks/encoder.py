"""Trained networks that embed sounds, and those that ship or that a file holds.

An encoder of another package is made by a factory without arguments, which settings
name as ``package.module:factory``, or by its entry point in ``audiodd.encoders``. It
returns an ``Encoder``:

    def encoder():
        weights = load()  # from wherever they are
        return Encoder(
            front_end={"sample_rate": 32_000, "n_mels": 64, "clip_seconds": 5.0},
            embed=lambda decibels: network(weights, decibels),
            digest=digest_of(weights.values()),
        )
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from audiodd_jax.config import EncoderConfig, extensions
from audiodd_jax.errors import UserError
from audiodd_jax.networks import onnx_graph, speech_embedding

Decibels = Float[Array, "b f t"]


class Encoder(NamedTuple):
    """A trained network that embeds log-mel spectrograms.

    Attributes:
      front_end: the feature settings that it was trained with, by name, as far as it
        needs them.
      embed: a pure function, differentiable in its input, of spectrograms in dB
        ``[b, f, t]``. It returns embeddings ``[b, d]``, or those of successive windows
        ``[b, windows, d]``.
      digest: a digest of the weights.
      frames_per_second: spectrogram frames per second, if ``front_end`` leaves the
        length of clips open; 0: it does not.
      least_frames: fewest frames of a spectrogram.
    """

    front_end: dict[str, Any]
    embed: Callable[[Decibels], Float[Array, "b *windows d"]]
    digest: str
    frames_per_second: int = 0
    least_frames: int = 1


def digest_of(arrays: Iterable[Any]) -> str:
    """Returns a digest of weights."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.asarray(array).tobytes())
    return digest.hexdigest()[:16]


def make(config: EncoderConfig) -> Encoder:
    """Returns the encoder that the settings name, unless a file of ours holds it.

    Raises:
      UserError: it cannot be imported or read, or a package is missing.
    """
    name = config.name
    if name in SHIPPED:
        return SHIPPED[name]()
    if name.endswith(".onnx"):
        return from_onnx(config)
    by_path = ":" in name
    load = extensions.from_path if by_path else _installed
    made = load(name)()
    if not isinstance(made, Encoder):
        raise UserError(
            f"{name} returns {type(made).__name__}, not audiodd_jax.Encoder"
        )
    return made


def _installed(name: str) -> Callable[[], Encoder]:
    return extensions.load(extensions.ENCODERS, name)


def speech() -> Encoder:
    """The speech embedding in the package ``openwakeword``."""
    weights, digest = speech_embedding.load()

    def embed(decibels: Decibels) -> Float[Array, "b windows d"]:
        return speech_embedding.apply(weights, decibels)

    given = speech_embedding
    front_end = dict(given.FRONT_END)
    return Encoder(front_end, embed, digest, given.FRAMES_PER_SECOND, given.WINDOW)


SHIPPED: dict[str, Callable[[], Encoder]] = {"speech_embedding": speech}


def from_onnx(config: EncoderConfig) -> Encoder:
    """Returns the encoder of an ONNX file, as ``config`` describes it.

    Its spectrograms are those of the feature settings. Longer clips are cut into
    windows of the model's length.
    """
    graph = onnx_graph.read(Path(config.name))
    function = onnx_graph.function(graph, config.input, config.output)
    source = config.input or next(iter(graph.inputs))
    shape = graph.inputs.get(source, ())
    letters = config.layout
    window = 0
    if len(shape) == len(letters):
        window = max(0, shape[letters.index("t")])

    def of_window(decibels: Decibels) -> Float[Array, "b d"]:
        x = decibels * config.scale + config.offset
        axes = {"n": x.shape[0], "f": x.shape[1], "t": x.shape[2], "1": 1}
        order = [letter for letter in letters if letter != "1"]
        x = jnp.transpose(x, ["nft".index(letter) for letter in order])
        out = function(x.reshape([axes[letter] for letter in letters]))
        return out.reshape(out.shape[0], -1)

    def embed(decibels: Decibels) -> Float[Array, "b windows d"]:
        return windows(of_window, decibels, window, config.hop or max(1, window // 2))

    return Encoder({}, embed, graph.digest, least_frames=max(1, window))


def windows(
    embed: Callable[[Decibels], Float[Array, "b d"]],
    decibels: Decibels,
    window: int,
    hop: int,
) -> Float[Array, "b windows d"]:
    """Embeds windows of some frames; 0: all frames are one window."""
    b, f, t = decibels.shape
    if not window or t == window:
        return embed(decibels)[:, None]
    starts = np.arange(0, t - window + 1, hop)
    cut = decibels[:, :, starts[:, None] + np.arange(window)]
    cut = cut.transpose(0, 2, 1, 3).reshape(b * starts.size, f, window)
    return embed(cut).reshape(b, starts.size, -1)
