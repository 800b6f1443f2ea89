"""Coreset files, which can be used without the run that made them."""

import copy
import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from audiodd_jax.config import (
    Config,
    CoresetConfig,
    FeaturesConfig,
    ViewsConfig,
    fields,
)
from audiodd_jax.config.packing import Packing
from audiodd_jax.config.user_paths import local
from audiodd_jax.coreset import sizes as coreset_sizes
from audiodd_jax.coreset import storage
from audiodd_jax.coreset import views as views_lib
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.coreset.storage import Bytes
from audiodd_jax.coreset.views import Views
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.features import encoders, inversion
from audiodd_jax.features import normalization as normalization_lib
from audiodd_jax.features.artefact import Artefact, opened, statistics
from audiodd_jax.features.encoders import Embedder
from audiodd_jax.features.labels import probabilities, tag_threshold
from audiodd_jax.kernels import ridge
from audiodd_jax.kernels.ridge import Scoring
from audiodd_jax.networks.encoder import Encoder
from audiodd_jax.runtime import mirror
from audiodd_jax.runtime.environment import standard_numerics
from audiodd_jax.runtime.files import save_npz

FORMAT = 3
# The format of files whose images have whole bytes.
_SECOND_FORMAT = 2
# The format of files whose images are float32, packed along time alone, with all labels
# of the views: version 0.1.0 reads them.
_FIRST_FORMAT = 1
# Name of the coreset that comes with the package.
EXAMPLE = "example"


@dataclasses.dataclass(frozen=True)
class Coreset(Artefact):
    """A coreset with everything that is needed to use it.

    Attributes:
      images: ``[s, f, t, 1]`` float32, standardised log-mel spectrograms as they are
        packed (see ``packing``), with the values that the file gives back.
      labels: ``[s, c]`` float32, soft labels, centred.
      class_names: ``c`` names.
      metadata: dataset, feature settings, normalisation constants, method, settings.
      teacher_labels: ``[k, c]`` float16, a teacher's probabilities of ``views``, for
        training networks, as the file gives them back; None: distilled without a
        teacher. Kernel regression reads ``labels``.
      made_for: ``[s]`` indices of the classes or tags that the spectrograms were made
        for, ``classes`` in the file; None: unknown.
      stored_views: the arrays that store ``teacher_labels`` (see ``coreset.storage``);
        None, or those of other labels: ``save`` makes them.
    """

    images: Float[np.ndarray, "s f t 1"]
    labels: Float[np.ndarray, "s c"]
    class_names: tuple[str, ...]
    metadata: dict[str, Any]
    teacher_labels: Float[np.ndarray, "k c"] | None = None
    made_for: Int[np.ndarray, " _"] | None = None
    stored_views: dict[str, np.ndarray] | None = None

    @property
    def features(self) -> FeaturesConfig:
        """Feature settings of the images; settings of later versions are ignored."""
        return fields.from_dict(self.metadata["features"], FeaturesConfig)

    @property
    def normalization(self) -> normalization_lib.Normalization:
        """Statistics that standardised the images."""
        return statistics(self.metadata)

    @property
    def image_shape(self) -> tuple[int, int]:
        """``(f, t)`` of the spectrograms, or ``(d, 1)`` of embeddings."""
        if self.has_embeddings:
            return self.normalization.mean.size, 1
        return self.features.n_mels, self.features.frames

    @property
    def has_embeddings(self) -> bool:
        """True if images are embeddings of an encoder instead of spectrograms."""
        return "encoder" in self.metadata and (
            self._config.encoder.distil == "embeddings"
        )

    @functools.cached_property
    def embedder(self) -> Embedder | None:
        """The encoder that the coreset was made for; None: it was made for none.

        Raises:
          UserError: the encoder cannot be loaded, or has other weights.
        """
        if "encoder" not in self.metadata:
            return None
        encoder = encoders.load(self._config.encoder)
        return self.embedder_by(encoder) if encoder else None

    def embedder_by(self, encoder: Encoder) -> Embedder:
        """As ``embedder``, with an encoder that is loaded already."""
        recorded, name = self.metadata["encoder"], self._config.encoder.name
        if encoder.digest != recorded["digest"]:
            raise UserError(
                f"this coreset was made for other weights of the encoder {name}: "
                f"{recorded['digest']}, not {encoder.digest}"
            )
        embeddings = statistics({"normalization": recorded})
        return Embedder(encoder, self.normalization, embeddings)

    @property
    def packing(self) -> Packing:
        """How images hold spectrograms (see ``coreset.arrays``)."""
        return Packing.parse(self._config.coreset.factor)

    @property
    def factor(self) -> int:
        """Spectrograms per image."""
        return self.packing.per_image

    @property
    def _config(self) -> Config:
        """Settings of the run; those that the file lacks have their defaults."""
        return fields.from_dict(self.metadata.get("settings", {}))

    @property
    def has_tags(self) -> bool:
        """True if spectrograms carry tags instead of a single class."""
        return self.metadata.get("has_tags", False)

    @property
    def classes(self) -> Int[np.ndarray, " s"]:
        """The class or tag that each image was made for, whatever its learnt label.

        Earlier versions did not record it, but wrote the images in class order. If
        images are missing, the largest value of a label decides.
        """
        count, num_classes = self.labels.shape
        if self.made_for is not None and len(self.made_for) == count:
            return self.made_for
        settings = self.metadata.get("settings", {}).get("coreset", {})
        per_class = settings.get("samples_per_class", 0)
        if per_class * num_classes != count:
            return self.labels.argmax(1)
        return np.arange(count) // per_class

    @property
    def unpacked_classes(self) -> Int[np.ndarray, " k"]:
        """The class or tag that each full-length spectrogram was made for."""
        return np.repeat(self.classes, self.factor)

    def in_words(self, label: Float[np.ndarray, " c"]) -> str:
        """Names the class of a centred label, or its tags, joined by semicolons.

        The class is the largest value. Tags are those with an estimated probability
        above one half; there may be none.
        """
        if not self.has_tags:
            return self.class_names[label.argmax()]
        has_tag = label > tag_threshold(label.size)
        return tags.in_words(has_tag.astype(int), self.class_names)

    @standard_numerics()
    def unpack(self) -> CoresetArrays:
        """Returns all spectrograms at full length and their labels, as JAX arrays."""
        log_scale = math.log(self.metadata.get("platt_scale", 1.0))
        stored = map(jnp.asarray, (self.images, self.labels, np.float32(log_scale)))
        return CoresetArrays(*stored).unpack(self.packing.setting)

    unfolded = unpack  # the former name, kept for one version

    @standard_numerics()
    def predict(
        self, images: Float[Array | np.ndarray, "b f t 1"]
    ) -> Float[Array, "b c"]:
        """Predicts probabilities of standardised spectrograms by kernel regression.

        Networks and seeds are those of the run's evaluation. Probabilities of classes
        sum to one; each tag has its own.
        """
        config = self._config
        is_scaled = (config.method, config.rfad.loss) == ("rfad", "platt")
        scale = self.metadata["platt_scale"] if is_scaled else 0.0
        outputs = self._regression(jnp.asarray(images))
        return probabilities(outputs, self.has_tags, scale)

    @functools.cached_property
    def _regression(self) -> Callable[[Array], Array]:
        arrays, scoring = self.unpack(), Scoring.from_config(self._config, is_test=True)
        scoring = scoring._replace(embed=self.embedder)
        seeds = range(self._config.evaluation.seeds)
        return ridge.solved(arrays.images, arrays.labels, scoring, seeds)

    @standard_numerics()
    def views(self) -> Views:
        """Returns spectrograms and soft labels to train networks on, as NumPy arrays.

        They are ``k = views * s * factor`` random views of the spectrograms, or the
        spectrograms themselves, with the teacher's probabilities. Views depend on the
        file alone: every call and process makes the same arrays.

        Raises:
          UserError: the coreset was made without a teacher.
        """
        if self.teacher_labels is None:
            raise UserError(
                "this coreset has no teacher labels: distil it with "
                "--preset=transfer, or --config.teacher.networks=2"
            )
        recipe = self.metadata["views"]
        images = views_lib.make(
            self.unpack().images,
            recipe["count"],
            fields.from_dict(recipe["settings"], ViewsConfig),
            self.normalization,
            recipe["seed"],
            self.layers,
        )
        return Views(images, self.teacher_labels.astype(np.float32))

    @property
    def layers(self) -> Int[np.ndarray, " k"] | None:
        """The layer of each full-length spectrogram of a nested coreset, or None."""
        if not self._config.coreset.nested:
            return None
        return np.repeat(coreset_sizes.layers(self.classes), self.factor)

    def first(self, per_class: int) -> "Coreset":
        """Returns the first images of each class and their views, as a coreset.

        Raises:
          UserError: the coreset is not nested, or does not have this size.
        """
        ranks = coreset_sizes.ranks_in_class(self.classes)
        sizes = coreset_sizes.prefixes(int(ranks.max()) + 1)
        if not self._config.coreset.nested:
            raise UserError("this coreset is not nested: distil it with --nested")
        if per_class not in sizes:
            offered = ", ".join(map(str, sizes))
            raise UserError(
                f"a nested coreset has the sizes {offered} per class, not {per_class}"
            )
        is_kept = ranks < per_class
        metadata = copy.deepcopy(self.metadata)
        metadata["settings"]["coreset"]["samples_per_class"] = per_class
        of_views = self.teacher_labels
        if of_views is not None:
            kept, num_classes = np.repeat(is_kept, self.factor), of_views.shape[1]
            of_views = of_views.reshape(-1, kept.size, num_classes)[:, kept]
            of_views = of_views.reshape(-1, num_classes)
        return dataclasses.replace(
            self,
            images=self.images[is_kept],
            labels=self.labels[is_kept],
            metadata=metadata,
            teacher_labels=of_views,
            made_for=self.classes[is_kept],
            stored_views=None,
        )

    @property
    def storage(self) -> str:
        """How numbers are stored: ``coreset.storage`` of the run."""
        return self._config.coreset.storage

    @property
    def num_values(self) -> int:
        """Number of stored values: images and labels."""
        arrays = {**self._arrays(), "images": self.images}
        return sum(arrays[name].size for name in storage.NAMES if name in arrays)

    @property
    def num_bytes(self) -> int:
        """Size of images and labels in bytes."""
        return self.file_bytes.images + self.file_bytes.labels

    @property
    def file_bytes(self) -> Bytes:
        """Size of the file in bytes: of images, of labels, and of the rest."""
        return storage.count(self._arrays())

    def _arrays(self) -> dict[str, np.ndarray]:
        """The arrays of the file by their names (see ``coreset.storage``)."""
        classes = self.classes.astype(np.int32)
        arrays = storage.encode("image", self.images, self.storage)
        hard = _hard_labels(classes, len(self.class_names))
        is_compact = self.storage != "float32"
        if not (is_compact and np.array_equal(self.labels, hard)):
            arrays |= storage.encode("label", self.labels, self.storage)
        arrays |= self._views_arrays()
        if is_compact:
            metadata = {**self.metadata, "class_names": self.class_names}
            arrays["classes"] = storage.smallest(classes)
            return arrays | {"metadata": storage.pack_text(json.dumps(metadata))}
        arrays["classes"] = classes
        arrays["class_names"] = np.array(self.class_names)
        return arrays | {"metadata": np.array(json.dumps(self.metadata))}

    def _views_arrays(self) -> dict[str, np.ndarray]:
        """The arrays of the views' labels, by their names in the file."""
        if (labels := self.teacher_labels) is None:
            return {}
        stored, kinds = self.stored_views or {}, (len(self.class_names), self.has_tags)
        decoded = storage.decode_views(stored, *kinds)
        if decoded is not None and np.array_equal(labels, decoded):
            return stored
        top_k = self._config.views.top_k
        return storage.encode_views(labels, self.storage, top_k, self.has_tags)

    @classmethod
    def _from_arrays(
        cls, arrays: dict[str, np.ndarray], metadata: dict[str, Any]
    ) -> "Coreset":
        """Returns the coreset that a file's arrays and metadata hold."""
        metadata = dict(metadata)
        names = arrays.get("class_names")
        if names is None:
            names = metadata.pop("class_names")
        class_names, classes = tuple(map(str, names)), arrays.get("classes")
        if classes is not None and classes.dtype.kind == "u":
            classes = classes.astype(np.int32)
        num_classes = len(class_names)
        if "labels" in arrays:
            labels = storage.decode("label", arrays, "")
        else:  # those of the classes
            labels = _hard_labels(arrays["classes"], num_classes)
        has_tags = metadata.get("has_tags", False)
        views = storage.decode_views(arrays, num_classes, has_tags)
        kind = metadata.get("settings", {}).get("coreset", {}).get("storage", "")
        images = storage.decode("image", arrays, kind)
        stored = {n: arrays[n] for n in storage.OF_VIEWS if n in arrays} or None
        found = cls(images, labels, class_names, metadata, views, classes, stored)
        if arrays["images"].dtype == np.uint8:
            mel_bins = found.packing.image_shape(found.image_shape)[0]
            return dataclasses.replace(found, images=images[:, :mel_bins])
        return found

    def read_back(self) -> "Coreset":
        """Returns the coreset with the values that its file gives back."""
        arrays = self._arrays()
        if "class_names" in arrays:
            return self._from_arrays(arrays, self.metadata)
        metadata = {**self.metadata, "class_names": self.class_names}
        return self._from_arrays(arrays, metadata)

    @standard_numerics()
    def sounds(
        self, *, seed: int = 0, iterations: int = 64
    ) -> Float[np.ndarray, "k samples"]:
        """Computes a waveform of each spectrogram, at ``features.sample_rate``.

        Many waveforms have the same spectrogram; ``features.inversion`` finds one.

        Args:
          seed: draws the initial phases of Griffin-Lim.

        Raises:
          UserError: ``iterations`` is negative, or the coreset has embeddings.
        """
        self.check_spectrograms("sounds")
        log_mel = normalization_lib.invert(self.unpack().images, self.normalization)
        key, config = jax.random.key(seed), self.features
        sounds = inversion.invert_many(log_mel, config, key=key, iterations=iterations)
        return np.asarray(sounds.waveforms)

    def check_spectrograms(self, what: str) -> None:
        """Raises UserError if the coreset has embeddings instead of spectrograms."""
        if self.has_embeddings:
            raise UserError(
                f"{what} need spectrograms, but this coreset has embeddings of the "
                f"encoder {self._config.encoder.name}"
            )

    def standardized(
        self, log_mel: Num[Array | np.ndarray, "b f t"]
    ) -> Float[Array, "b f2 t2 1"]:
        """Standardises spectrograms in dB, or embeds them, like those of the file."""
        embedder = self.embedder if self.has_embeddings else None
        if embedder is None:
            return super().standardized(log_mel)
        return embedder.of_decibels(jnp.asarray(log_mel, jnp.float32))

    def save(self, path: str | os.PathLike) -> None:
        """Writes ``path`` atomically; ``numpy.load(allow_pickle=False)`` reads it."""
        path = local(path)
        if mirror.url_of(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        save_npz(path, **self._arrays())
        mirror.publish(path)


def _hard_labels(
    classes: Num[np.ndarray, " s"], num_classes: int
) -> Float[np.ndarray, "s c"]:
    """Returns the labels of classes, centred."""
    one_hot = classes[:, None] == np.arange(num_classes)
    return one_hot.astype(np.float32) - np.float32(1 / num_classes)


def format_of(coreset: CoresetConfig, top_k: int) -> int:
    """Returns the format of a coreset's file, the earliest that can hold it."""
    packing = Packing.parse(coreset.factor)
    is_first = packing.mel == 1 and not packing.is_single
    is_first &= coreset.storage == "float32" and not top_k
    if is_first:
        return _FIRST_FORMAT
    return FORMAT if coreset.storage in storage.BITS else _SECOND_FORMAT


def load_coreset(path: str | os.PathLike) -> Coreset:
    """Reads and checks a coreset file.

    ``example`` is the coreset that comes with the package: 40 spoken keywords, learned
    from Arabic Speech Commands (CC BY 4.0), with views.

    Raises:
      UserError: the file does not exist, is damaged, or has a newer format.
    """
    path = local(path)
    mirror.fetch(path)
    if path == Path(EXAMPLE) and not path.is_file():
        path = Path(__file__).with_name("example_coreset.npz")
    with opened(path, "coreset", FORMAT) as (arrays, metadata):
        result = Coreset._from_arrays(arrays, metadata)
        is_well_formed = _is_well_formed(result)
    if not is_well_formed:
        raise UserError(f"{path} is damaged: its arrays do not match its metadata")
    return result


def _is_well_formed(coreset: Coreset) -> bool:
    """Returns whether a coreset's arrays match its metadata."""
    images, labels = coreset.images, coreset.labels
    made_for, packing = coreset.made_for, coreset.packing
    shape = coreset.image_shape
    is_well_formed = bool(
        images.dtype == labels.dtype == np.float32
        and images.shape == (labels.shape[0], *packing.image_shape(shape), 1)
        and labels.shape[1] == len(coreset.class_names)
        and shape[0] % packing.mel == shape[1] % packing.frames == 0
        and coreset.normalization.mean.shape == shape[:1]
        and np.isfinite(images).all()
        and np.isfinite(labels).all()
        and (made_for is None or made_for.shape == labels.shape[:1])
        and np.issubdtype(coreset.classes.dtype, np.integer)
        and np.isin(coreset.classes, np.arange(labels.shape[1])).all()
    )
    probabilities = coreset.teacher_labels
    if probabilities is None or not is_well_formed:
        return is_well_formed
    recipe = coreset.metadata["views"]
    views = max(1, recipe["count"]) * labels.shape[0] * coreset.factor
    return bool(
        probabilities.dtype == np.float16
        and probabilities.shape == (views, labels.shape[1])
        and isinstance(recipe["seed"], int)
        and (probabilities >= 0).all()
        and (probabilities <= 1).all()
    )
