"""Clips of one split: standardised, or standardised when they are read."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from audiodd_jax.features import normalization as normalization_lib
from audiodd_jax.features.normalization import Normalization

# Compiled once per shape.
standardize = jax.jit(normalization_lib.apply)


class Clips(NamedTuple):
    """Clips of one split, on the device or in the feature cache.

    On the device it is a pytree that compiled programs take as an argument.

    Attributes:
      features: one of three forms:
        ``[b, f, t, 1]`` standardised log-mel spectrograms on the device;
        ``[b, f, t]`` float16 in dB on the device, which takes half the memory and loads
        without computation;
        ``[clips, f, t]`` float16 in dB of the whole dataset, memory-mapped.
      labels: ``[b]`` classes, or ``[b, c]`` tags; on the device.
      normalization: statistics that standardise features in dB; None: the features are
        standardised.
      recordings: ``[b]`` number of each clip's recording within its class, below ``b``;
        None: every clip is its own recording.
      rows: ``[b]`` rows of memory-mapped features that belong to the split; None: the
        features are on the device.
      weights: ``[b]`` weights of the clips in scores, which sum to one; None: the same
        for all recordings.
    """

    features: Num[Array | np.ndarray, "b f t *channels"]
    labels: Int[Array, "b *c"]
    normalization: Normalization | None = None
    recordings: Int[Array, " b"] | None = None
    rows: Int[np.ndarray, " b"] | None = None
    weights: Float[Array, " b"] | None = None

    @property
    def is_on_host(self) -> bool:
        """True if the features stay in the cache and are read batch by batch."""
        return self.rows is not None

    @property
    def image_shape(self) -> tuple[int, int]:
        """``(f, t)`` of the spectrograms."""
        return self.features.shape[1:3]

    @property
    def images(self) -> Float[Array, "b f t 1"]:
        """All standardised spectrograms; features in dB are converted at each call."""
        if self.normalization is None:
            return self.features
        features = self.features[self.rows] if self.is_on_host else self.features
        return standardize(features, self.normalization)

    def read(
        self, rows: Int[Array | np.ndarray, "..."]
    ) -> Num[Array | np.ndarray, "..."]:
        """Returns features of some clips as they are stored."""
        if self.is_on_host:
            rows = self.rows[np.asarray(rows)]
        return self.features[rows]

    def take(self, rows: Int[Array | np.ndarray, " b"]) -> Float[Array, "b f t 1"]:
        """Returns the standardised spectrograms of some clips, on the device."""
        return self._replace(features=self.read(rows), rows=None).images

    def subset(self, rows: Int[Array | np.ndarray, " b"]) -> "Clips":
        """Returns some of the clips; features in the cache stay there."""
        chosen = self._replace(labels=self.labels[rows], weights=None)
        if self.recordings is not None:  # numbered from 0, below ``b``
            numbers = np.asarray(self.recordings[rows])
            numbers = np.unique(numbers, return_inverse=True)[1]
            chosen = chosen._replace(recordings=jnp.asarray(numbers, jnp.int32))
        if self.is_on_host:
            return chosen._replace(rows=self.rows[np.asarray(rows)])
        return chosen._replace(features=self.features[rows])
