"""Encoders in front of the data: their features, and the embeddings of clips.

Embeddings of a dataset's clips are kept in the feature cache, next to the spectrograms
that they were computed from. They take the place of spectrograms ``[f, t]`` as
``[d, 1]``, so that splits, statistics, batches and coresets treat both alike.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from audiodd_jax.config import EncoderConfig, FeaturesConfig, ModelConfig, fields
from audiodd_jax.errors import UserError
from audiodd_jax.features import normalization
from audiodd_jax.features.artefact import opened, statistics
from audiodd_jax.features.cache import FeatureSet
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.networks import encoder as encoder_lib
from audiodd_jax.networks import models
from audiodd_jax.networks.encoder import Encoder
from audiodd_jax.runtime import files, progress

# Clips embedded at once.
_CHUNK = 128


def load(config: EncoderConfig) -> Encoder | None:
    """Returns the encoder that the settings name, with one embedding per clip.

    Raises:
      UserError: it cannot be imported or read, or a package is missing.
    """
    if not config.name:
        return None
    is_own = config.name.endswith(".npz")
    made = _trained(Path(config.name)) if is_own else encoder_lib.make(config)

    def embed(decibels: Float[Array, "b f t"]) -> Float[Array, "b d"]:
        found = made.embed(decibels)
        if found.ndim == 3 and config.windows == "mean":
            found = found.mean(1)
        return found.reshape(decibels.shape[0], -1)

    return made._replace(embed=embed, digest=f"{made.digest}-{config.windows}")


def of_head(config: EncoderConfig, model: str) -> Encoder | None:
    """Returns the encoder on whose embeddings a linear head is trained, as ``load``."""
    if config.name and model != "linear":
        raise UserError(
            f"with --encoder a linear head is trained: add --model=linear, not {model}"
        )
    return load(config)


def _trained(path: Path) -> Encoder:
    """The first network in a file of ``audiodd train``, up to its last layer."""
    kind = "networks file", models.FILE_FORMAT
    with opened(path, *kind) as (arrays, metadata):
        config = fields.from_dict(metadata["model"], ModelConfig)
        model = models.make(config, len(metadata["class_names"]))
        stats, networks = statistics(metadata), models.from_arrays(arrays)
        variables = jax.tree.map(lambda leaf: leaf[0], networks.variables)

    def embed(decibels: Float[Array, "b f t"]) -> Float[Array, "b d"]:
        return models.embed(model, variables, normalization.apply(decibels, stats))[0]

    digest = encoder_lib.digest_of(arrays[name] for name in sorted(arrays))
    return Encoder(metadata["features"], embed, digest)


def front_end(settings: FeaturesConfig, encoder: Encoder | None) -> FeaturesConfig:
    """Returns feature settings with those that an encoder needs; None: unchanged.

    Raises:
      UserError: the length of clips is needed, but not set.
    """
    if encoder is None:
        return settings
    known = {f.name for f in dataclasses.fields(FeaturesConfig)}
    own = {name: value for name, value in encoder.front_end.items() if name in known}
    settings = dataclasses.replace(settings, **own)
    if rate := encoder.frames_per_second:
        if not settings.clip_seconds:
            raise UserError(
                "an encoder needs the length of clips in seconds: set "
                "--config.features.clip_seconds"
            )
        frames = max(encoder.least_frames, round(settings.clip_seconds * rate))
        length = {"frames": frames, "clip_seconds": frames / rate}
        settings = dataclasses.replace(settings, **length)
    if settings.frames < encoder.least_frames:
        raise UserError(
            f"the encoder needs at least {encoder.least_frames} frames, not "
            f"{settings.frames}: raise --config.features.frames"
        )
    return settings


def embedded(stored: FeatureSet, encoder: Encoder) -> FeatureSet:
    """Returns the clips with embeddings as features, from the cache or computed now."""
    path = stored.path.with_name(f"{stored.path.name}-{encoder.digest}.npy")
    if not path.exists():
        with files.atomic(path) as file:
            np.save(file, _embed_all(stored, encoder))
    try:
        values = files.load_npy(path, is_mapped=True)[:, :, None]
        if len(values) != len(stored.labels):
            raise ValueError("their number differs from that of the clips")
    except (*files.DAMAGE, OSError) as error:
        raise UserError(
            f"the embeddings in {path} are damaged ({error}); delete this file to "
            "compute them again"
        ) from error
    moments = normalization.moments(values)
    return dataclasses.replace(stored, features=values, moments=moments, noise=None)


def _embed_all(stored: FeatureSet, encoder: Encoder) -> Float[np.ndarray, "clips d"]:
    embed = jax.jit(lambda decibels: encoder.embed(decibels.astype(jnp.float32)))
    count = len(stored.labels)
    size, found = min(_CHUNK, count), []
    with progress.bar(count, desc="embeddings", unit="clip") as bar:
        for first in range(0, count, size):
            # The last part overlaps the one before, so that all have one size.
            start = max(0, min(first, count - size))
            rows = np.asarray(embed(stored.features[start : start + size]))
            found.append(rows[first - start :])
            bar.update(len(found[-1]))
    result = np.concatenate(found)
    if not np.isfinite(result).all():
        raise UserError("the encoder returns values that are not finite")
    return result


@dataclasses.dataclass(frozen=True, eq=False)
class Embedder:
    """Embeds standardised spectrograms, and standardises the result.

    Attributes:
      images: statistics of the spectrograms.
      embeddings: statistics of the embeddings.
    """

    encoder: Encoder
    images: Normalization
    embeddings: Normalization

    def __call__(self, images: Float[Array, "b f t 1"]) -> Float[Array, "b d 1 1"]:
        """Returns embeddings in the form of spectrograms."""
        return self.of_decibels(normalization.invert(images, self.images))

    def of_decibels(self, log_mel: Float[Array, "b f t"]) -> Float[Array, "b d 1 1"]:
        """Returns embeddings of spectrograms in dB."""
        found = self.encoder.embed(log_mel)
        return normalization.apply(found[..., None], self.embeddings)


# Maps images to embeddings.
Embed = Callable[[Float[Array, "b f t 1"]], Float[Array, "b d 1 1"]]
