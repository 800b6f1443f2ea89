"""The coreset: on the device, the shape of the methods that learn it, the artefact."""

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from audiodd_jax.config import FeaturesConfig
from audiodd_jax.distillation import formation
from audiodd_jax.features import inversion, normalize, waveforms
from audiodd_jax.features.batches import Draw
from audiodd_jax.features.prepared import Split
from audiodd_jax.runtime.arrays import DAMAGE, load_npz
from audiodd_jax.runtime.errors import UserError

FORMAT = 1


class CoresetArrays(NamedTuple):
    """A coreset on the device, as it is stored or as it is learnt from.

    Attributes:
      images: ``[s, f, t, 1]`` standardised log-mel spectrograms.
      labels: ``[s, c]`` soft labels, centred: a one-hot label is ``one_hot - 1/c``.
      log_scale: ``[]`` log of the learnt Platt scale; 0 where none is learnt.
    """

    images: Float[Array, "s f t 1"]
    labels: Float[Array, "s c"]
    log_scale: Float[Array, ""]

    def unfolded(self, factor: int) -> "CoresetArrays":
        """What learners take of a stored coreset: ``s * factor`` images and labels."""
        images = formation.stretch(self.images, factor)
        return self._replace(
            images=images, labels=formation.shared(self.labels, factor)
        )


class Method(NamedTuple):
    """The one shape of every distillation method: pure functions over its settings.

    Attributes:
      init: ``(key, start) -> state``, a pytree of arrays with ``step`` among them.
      step: ``(state, batch) -> (state, metrics)``, to be jitted and scanned.
      coreset: ``state -> CoresetArrays``, as they are stored.
      draw: which clips a batch holds; None: ``loop.batch_size`` of all.
    """

    init: Callable[[Key[Array, ""], CoresetArrays], Any]
    step: Callable[[Any, Split], tuple[Any, dict[str, Array]]]
    coreset: Callable[[Any], CoresetArrays]
    draw: Draw | None = None


@dataclasses.dataclass(frozen=True)
class Coreset:
    """The artefact: a coreset with everything that is needed to use it.

    Attributes:
      images: ``[s, f, t, 1]`` float32, standardised log-mel spectrograms; of a
        ``factor`` above 1, as they are stored.
      labels: ``[s, c]`` float32, soft labels, centred.
      class_names: ``c`` names.
      metadata: dataset, feature settings, normalisation constants, method, settings.
    """

    images: Float[np.ndarray, "s f t 1"]
    labels: Float[np.ndarray, "s c"]
    class_names: tuple[str, ...]
    metadata: dict[str, Any]

    @property
    def features(self) -> FeaturesConfig:
        """The feature settings that the images were made with."""
        return FeaturesConfig(**self.metadata["features"])

    @property
    def normalization(self) -> normalize.Normalization:
        """The statistics that the images were standardised with."""
        stats = self.metadata["normalization"]
        mean, std = (np.array(stats[name], np.float32) for name in ("mean", "std"))
        return normalize.Normalization(mean, std)

    @property
    def factor(self) -> int:
        """Spectrograms that each stored one holds along time; see ``formation``."""
        settings = self.metadata.get("settings", {})
        return settings.get("coreset", {}).get("factor", 1)

    def unfolded(self) -> CoresetArrays:
        """What learners take, on the device: all spectrograms of full length."""
        log_scale = math.log(self.metadata["platt_scale"])
        stored = map(jnp.asarray, (self.images, self.labels, np.float32(log_scale)))
        return CoresetArrays(*stored).unfolded(self.factor)

    @property
    def num_values(self) -> int:
        """Numbers that are stored: of images and labels."""
        return self.images.size + self.labels.size

    @property
    def num_bytes(self) -> int:
        """Bytes of the images and labels."""
        return self.images.nbytes + self.labels.nbytes

    def normalize(
        self, waveform: Float[np.ndarray, "..."], sample_rate: int
    ) -> Float[Array, "b f t 1"]:
        """Recordings as this coreset's networks expect them.

        Args:
          waveform: ``[samples]`` or ``[b, samples]``, mono, in [-1, 1].
          sample_rate: in Hz.
        """
        return waveforms.standardized(
            waveform, sample_rate, self.features, self.normalization
        )

    def sounds(
        self, *, seed: int = 0, iterations: int = 64
    ) -> Float[np.ndarray, "k samples"]:
        """What the spectrograms sound like, a row each, at ``features.sample_rate``.

        One of the many sounds that have these spectrograms: see ``features.inversion``.

        Args:
          seed: draws the phases that Griffin-Lim starts from.
          iterations: of Griffin-Lim.

        Raises:
          UserError: fewer iterations than none.
        """
        log_mel = normalize.invert(self.unfolded().images, self.normalization)
        key, config = jax.random.key(seed), self.features
        found = inversion.invert_many(log_mel, config, key=key, iterations=iterations)
        return found.waveforms

    def save(self, path: str | os.PathLike) -> None:
        """Writes ``path`` atomically; ``numpy.load(allow_pickle=False)`` reads it."""
        path = Path(path)
        handle, scratch = tempfile.mkstemp(suffix=".npz", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(
                    file,
                    images=self.images,
                    labels=self.labels,
                    class_names=np.array(self.class_names),
                    metadata=np.array(json.dumps(self.metadata)),
                )
            os.chmod(scratch, 0o644)
            os.replace(scratch, path)
        except BaseException:
            os.unlink(scratch)
            raise


def load_coreset(path: str | os.PathLike) -> Coreset:
    """Reads and checks an artefact.

    Raises:
      UserError: there is none, or it is damaged or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no coreset {path}")
    try:
        arrays = load_npz(path)
        images, labels = arrays["images"], arrays["labels"]
        class_names = tuple(str(name) for name in arrays["class_names"])
        metadata = json.loads(str(arrays["metadata"]))
        if metadata["format"] > FORMAT:
            raise UserError(
                f"{path} is of format {metadata['format']}; this version reads {FORMAT}"
            )
        result = Coreset(images, labels, class_names, metadata)
        size = result.features
        well_formed = (
            images.shape == (labels.shape[0], size.n_mels, size.frames, 1)
            and labels.shape[1] == len(class_names)
            and size.frames % result.factor == 0
            and result.normalization.mean.shape == (size.n_mels,)
            and np.isfinite(images).all()
            and np.isfinite(labels).all()
        )
    except DAMAGE as error:
        raise UserError(f"{path} is not a coreset of audiodd_jax") from error
    if not well_formed:
        raise UserError(f"{path} is damaged: its arrays do not fit its metadata")
    return result
