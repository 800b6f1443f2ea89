"""Inference with a trained network, for any number of clips."""

from typing import NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Array

from audiodd_jax.networks import models
from audiodd_jax.networks.layers import Images, Logits
from audiodd_jax.networks.models import Variables
from audiodd_jax.runtime.chunked_map import in_chunks

# Clips scored at once by default.
CLIPS_AT_ONCE = 256


class Network(NamedTuple):
    """A trained network.

    Attributes:
      start: initial variables, if their logits are subtracted; else None.
    """

    variables: Variables
    start: Variables | None


def probabilities(logits: Logits, has_tags: bool) -> Logits:
    """Returns the softmax over classes, or the sigmoid of each tag."""
    return jax.nn.sigmoid(logits) if has_tags else jax.nn.softmax(logits)


def logits(network: Network, images: Images, model: nn.Module, chunk: int) -> Logits:
    """Computes logits for any number of clips, ``chunk`` at a time."""

    def part(images: Array) -> Array:
        out = models.logits(model, network.variables, images)
        if network.start is not None:
            out = out - models.logits(model, network.start, images)
        return out

    return in_chunks(part, images, chunk)
