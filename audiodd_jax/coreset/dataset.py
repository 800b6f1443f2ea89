"""The dataset of a coreset, with the coreset's preprocessing."""

import copy
import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from audiodd_jax.config import Config, CoresetConfig, DataConfig, FeaturesConfig, fields
from audiodd_jax.config.packing import Packing
from audiodd_jax.coreset import selection
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.coreset.file import Coreset, format_of, load_coreset
from audiodd_jax.data import audio
from audiodd_jax.errors import UserError
from audiodd_jax.features import dataset, encoders, logmel, normalization
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.dataset import Dataset, Encoded
from audiodd_jax.features.encoders import Embedder
from audiodd_jax.networks.encoder import Encoder
from audiodd_jax.runtime.files import read_json
from audiodd_jax.version import __version__

_log = logging.getLogger(__name__)

# Settings that locate the data, as far as a coreset's file leaves them out.
_LOCATION = ("data.data_dir", "data.allow_partial", "data.skip_bad_files")
_LOCATION += ("encoder.name",)


def coreset_config(coreset: Coreset, folder: Path | None = None) -> Config:
    """Returns the configuration that a coreset was distilled with.

    The ``config.json`` in ``folder``, its run directory, locates the data; None: the
    paths stay at their defaults.

    Raises:
      UserError: the coreset has no settings.
    """
    settings = coreset.metadata.get("settings")
    if not isinstance(settings, dict):
        raise UserError(
            "this coreset does not record how it was made: it has no settings; pass "
            "the configuration of its data"
        )
    config = fields.from_dict(settings)
    if folder is None or not (folder / "config.json").exists():
        return config
    saved = fields.from_dict(read_json(folder / "config.json"))
    return fields.replace(config, {name: fields.get(saved, name) for name in _LOCATION})


def metadata_of(settings: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """Returns the metadata of a coreset, made with settings as a run records them."""
    settings = copy.deepcopy(settings)
    # Coresets are shared; local paths are private.
    settings["data"]["data_dir"] = ""
    settings["coreset"]["init"] = Path(settings["coreset"]["init"]).name
    for name in ("run", "indices"):
        path = settings["labels"][name]
        settings["labels"][name] = Path(path).name or path  # "." has no name
    if encoder := settings.get("encoder"):
        is_file = encoder["name"].endswith((".npz", ".onnx"))
        encoder["name"] = Path(encoder["name"]).name if is_file else encoder["name"]
    settings["features"] = dataclasses.asdict(data.features)
    config = fields.from_dict(settings)
    return {
        "format": format_of(config.coreset, config.views.top_k),
        "audiodd_jax": __version__,
        "dataset": data.title,
        "dataset_version": data.version,
        "licence": data.licence,
        "split": {
            "num_train": data.num_train,
            "fold": data.fold,
            "is_partial": data.is_partial,
            "test_digest": data.test_digest,
        },
        "sample_rate": data.features.sample_rate,
        "features": settings["features"],
        "normalization": {
            "mean": data.normalization.mean.tolist(),
            "std": data.normalization.std.tolist(),
        },
        "method": config.method,
        "settings": settings,
        "platt_scale": 1.0,
        "regularizer": config.rfad.regularizer,
        **({"has_tags": True} if data.has_tags else {"metric": data.metric}),
    }


def with_teacher(metadata: dict[str, Any]) -> dict[str, Any]:
    """Returns a coreset's metadata with the recipes of its views and their teacher."""
    settings = metadata["settings"]
    views = {
        "count": settings["coreset"]["views"],
        "seed": settings["seed"],
        "settings": settings["views"],
    }
    return {**metadata, "views": views, "teacher": settings["teacher"]}


def load_data(
    coreset: Coreset,
    data: DataConfig,
    features: FeaturesConfig,
    needs_train: bool,
    scored_by: str = "auto",
) -> Dataset:
    """Loads a coreset's dataset, standardised with the coreset's statistics.

    Features are the coreset's, or the unresolved settings that it was distilled with.
    ``scored_by`` is the setting ``evaluation.metric``; ``auto`` is the metric of the
    coreset's run, which may have known a part of the labels only.
    """
    coreset.check_spectrograms("networks and random networks")
    scored_by = _metric(coreset, scored_by)
    if not needs_train:  # they stay in the cache
        data = dataclasses.replace(data, storage="host")
    loaded = dataset.load(data, features, coreset.normalization, scored_by)
    check_coreset(coreset, loaded)
    return loaded


def _metric(coreset: Coreset, scored_by: str) -> str:
    if scored_by != "auto":
        return scored_by
    return coreset.metadata.get("metric", scored_by).replace(" ", "_")


def load_encoded(
    coreset: Coreset, data: DataConfig, encoder: Encoder, scored_by: str = "auto"
) -> tuple[Encoded, CoresetArrays]:
    """Loads a coreset's dataset as embeddings, and embeds the coreset.

    The encoder may be another than the one that the coreset was made for. If it has
    another front end, it hears the sounds of the coreset's spectrograms.

    Raises:
      UserError: as ``load_data``, or a coreset of embeddings was made for another one.
    """
    is_own = coreset.metadata.get("encoder", {}).get("digest") == encoder.digest
    own = coreset.embedder_by(encoder) if is_own or coreset.has_embeddings else None
    features = encoders.front_end(coreset.features, encoder)
    given = own and own.embeddings, _metric(coreset, scored_by), encoder
    loaded = dataset.load(data, features, *given)
    check_coreset(coreset, loaded)
    embed = Embedder(encoder, coreset.normalization, loaded.normalization)
    arrays = coreset.unpack()
    if coreset.has_embeddings:
        return Encoded(loaded, embed), arrays
    if features == coreset.features:
        images = jax.jit(embed.__call__)(arrays.images)
    else:
        samples, rate = logmel.frontend(features).samples, coreset.features.sample_rate
        fit = lambda sound: audio.fit(
            audio.resample(sound, rate, features.sample_rate), samples, features.align
        )
        sounds = np.stack([fit(sound) for sound in coreset.sounds()])
        images = jax.jit(embed.of_decibels)(logmel.compute(sounds, features))
    return Encoded(loaded, embed), arrays._replace(images=images)


def check_coreset(coreset: Coreset, data: Dataset) -> None:
    """Refuses a dataset with other classes, or whose test clips made the coreset."""
    name = coreset.metadata["dataset"]
    if data.class_names != coreset.class_names:
        raise UserError(
            f"this coreset of {name} has the classes {_some(coreset.class_names)}; "
            f"{data.title} has {_some(data.class_names)}"
        )
    if coreset.has_tags != data.has_tags:
        kinds = ("one class per clip", "tags")
        raise UserError(
            f"this coreset of {name} has {kinds[coreset.has_tags]}; {data.title} has "
            f"{kinds[data.has_tags]}"
        )
    _check_split(coreset, data)


def _check_split(coreset: Coreset, data: Dataset) -> None:
    """Checks that a coreset was not, and could not have been, made from test clips."""
    split = coreset.metadata["split"]
    if split["fold"] and data.fold != split["fold"]:
        raise UserError(
            f"the test fold of this coreset is {split['fold']}; fold {data.fold} was "
            "used to distil it"
        )
    test = split.get("test_digest")
    if test and data.test_digest and test != data.test_digest:
        raise UserError(
            "the test clips differ from those of the coreset's run, so some may be "
            f"clips it was distilled from: {data.title} has changed or is split "
            "differently; restore its files and the settings config.data"
        )


def replayed(path: Path, data: Dataset) -> Dataset:
    """Lets an earlier coreset's spectrograms stand in for classes without clips.

    They become training clips of their classes, so that these need no recordings for
    another class to be added. Validation clips, which would be of the other classes
    alone, are left out. Returns the data itself if it has clips of all classes of the
    coreset.

    Raises:
      UserError: clips have tags, or are embeddings.
    """
    earlier = load_coreset(path)
    given = dict(zip(data.class_names, data.class_clips, strict=True))
    lacking = [not given.get(name) for name in earlier.class_names]
    if not any(lacking):
        return data
    _check_features(path, earlier, data)
    some = _some(tuple(np.array(earlier.class_names)[lacking]))
    if data.has_tags or data.is_embedded:
        kind = "clips with tags" if data.has_tags else "--encoder"
        raise UserError(
            f"{data.title} has no training clips of {some}, and with {kind} the "
            f"spectrograms of {path} cannot stand in for them; add recordings"
        )
    _log.info(
        "%s has no training clips of %s: the spectrograms of %s stand in for them, and "
        "test clips are of the other classes",
        *(data.title, some, path.name),
    )
    own, names, stats = earlier.class_names, data.class_names, earlier.normalization
    if set(own) - set(names):
        names = (*own, *(name for name in names if name not in own))
    column = np.array([names.index(name) for name in data.class_names])

    def renamed(clips: Clips) -> Clips:
        decibel = normalization.invert(clips.images, data.normalization)
        images = normalization.apply(decibel, stats)
        labels = jnp.asarray(column[np.asarray(clips.labels)], jnp.int32)
        return Clips(images, labels)

    rows = np.flatnonzero(np.array(lacking)[earlier.unpacked_classes])
    labels = np.array([names.index(own[i]) for i in earlier.unpacked_classes[rows]])
    clips, images = renamed(data.train), earlier.unpack().images[rows]
    train = Clips(
        jnp.concatenate([clips.features, images]),
        jnp.concatenate([clips.labels, jnp.asarray(labels, jnp.int32)]),
    )
    return dataclasses.replace(
        data,
        train=train,
        validation=renamed(data.validation.subset(np.zeros(0, int))),
        test=renamed(data.test),
        class_names=names,
        normalization=stats,
        num_unlabelled=data.num_train - len(clips.labels),
        num_replayed=rows.size,
        seconds=None,
    )


def warm_start(
    path: Path,
    config: CoresetConfig,
    data: Dataset,
    sizes: Int[np.ndarray, " c"],
    seed: int,
) -> CoresetArrays:
    """Makes an initial coreset that continues from an earlier coreset.

    Classes are matched by name, and the data has them all (``replayed``). Classes and
    samples that the earlier coreset lacks are filled with random training clips, or by
    herding if it stands in for other clips, up to ``sizes`` images of each class.

    Raises:
      UserError: the file is not a coreset that these data and settings can continue.
    """
    earlier = load_coreset(path)
    _check_features(path, earlier, data)
    if earlier.packing != Packing.parse(config.factor):
        old = earlier.packing.setting
        raise UserError(f"{path} has coreset.factor={old}, not {config.factor}")
    tested = {data.class_names[i] for i in np.unique(np.asarray(data.test.labels))}
    is_known = data.has_tags or tested & set(earlier.class_names)
    if coreset_config(earlier).data.name == data.name and is_known:
        _check_split(earlier, data)
    key, embedding = jax.random.key(seed), None
    real = dataclasses.replace(config, init="real")
    if data.num_replayed:  # nothing will be learnt: the clips that represent a class
        real, own = dataclasses.replace(config, init="herding"), coreset_config(earlier)
        embedding = selection.Embedding(own.network, own.evaluation.networks)
    random = selection.start(key, data.train, data.class_names, sizes, real, embedding)
    decibel = normalization.invert(jnp.asarray(earlier.images), earlier.normalization)
    images = normalization.apply(decibel, data.normalization)
    # Centred labels of more classes: the mean of each row stays zero.
    count = len(earlier.class_names)
    shift = 1 / count - 1 / data.num_classes
    labels = np.full((len(images), data.num_classes), -1 / data.num_classes, np.float32)
    columns = np.array([data.class_names.index(n) for n in earlier.class_names])
    labels[:, columns] = earlier.labels + shift
    classes = columns[earlier.classes]
    placed = (images, jnp.asarray(labels), classes)
    return selection.filled(random, *placed, sizes, data.class_names)


def _check_features(path: Path, earlier: Coreset, data: Dataset) -> None:
    if earlier.features != data.features:
        old, new = map(dataclasses.asdict, (earlier.features, data.features))
        other = ", ".join(name for name in old if old[name] != new[name])
        raise UserError(
            f"{path} was made with other features ({other}); set them by "
            "--config.features to continue from it"
        )


def _some(names: tuple[str, ...]) -> str:
    """The first names, and the number of the others."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")
