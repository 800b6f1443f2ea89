"""The networks of a person's session: training, predictions, choice of recordings.

They are trained and choose as in the simulated rounds (``rounds.py``). All recordings
are in one array, so that programs are compiled once per number of classes.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from audiodd_jax.active_learning import monte_carlo, query, rounds, stopping
from audiodd_jax.config import Config
from audiodd_jax.config.names import COMMITTEE
from audiodd_jax.data import datasets, sessions, tags
from audiodd_jax.data.answers import Journal
from audiodd_jax.data.recordings import Clip
from audiodd_jax.features import cache, dataset, metric, normalization
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.networks.models import Network
from audiodd_jax.training import programs


class Prediction(NamedTuple):
    """Predictions of the last networks for all recordings.

    Attributes:
      probabilities: their mean over networks.
    """

    names: tuple[str, ...]
    class_names: tuple[str, ...]
    probabilities: Float[np.ndarray, "b c"]
    has_tags: bool

    @property
    def words(self) -> np.ndarray:
        """The predicted class of each recording, or its tags joined by semicolons."""
        classes = np.array(self.class_names)
        if not self.has_tags:
            return classes[self.probabilities.argmax(1)]
        return np.array([";".join(classes[row > 0.5]) for row in self.probabilities])


class _Programs(NamedTuple):
    """The programs for a number of classes, compiled once."""

    compiled: programs.Programs
    choose: Any
    predict: Any


@dataclasses.dataclass
class Learner:
    """Networks for the recordings of a session.

    Attributes:
      config: the configuration of the session.
      stored: features of the recordings.
      clips: the recordings, by name.
      is_embedded: True if the features are an encoder's embeddings.
    """

    config: Config
    stored: cache.FeatureSet
    clips: dict[str, Clip]
    is_embedded: bool = False

    def __post_init__(self) -> None:
        self.names = tuple(map(str, self.stored.names))
        self._programs: dict[int, _Programs] = {}

    def data(self, journal: Journal) -> tuple[Dataset, np.ndarray]:
        """The recordings with the labels so far, and the part of each."""
        names, settings = self.stored.names, self.config.session
        found = sessions.relabelled(names, list(self.clips.values()), journal, settings)
        data = self._blank(found.class_names)
        return rounds.with_labels(data, found.labels), found.splits

    def fit(
        self, data: Dataset, rows: Int[np.ndarray, " l"], number: int
    ) -> tuple[Network, Float[np.ndarray, "b c"]]:
        """Trains networks on rows; returns them and the probabilities of all clips.

        Trainings of different numbers start from different networks.
        """
        labels = np.asarray(data.train.labels)[rows]
        sizes = tags.counts(labels, data.num_classes)
        is_unequal = not data.has_tags and rounds.are_unequal(sizes[sizes > 0])
        balance = "classes" if is_unequal else "none"
        data = dataclasses.replace(data, balance=balance)
        made = self._compiled(data)
        fitted = rounds.train(
            data, made.compiled, rows, self._seed(number), is_padded=True
        )
        networks = fitted.networks
        everything = np.arange(len(data.train.labels))
        found = made.predict(networks, everything, jax.random.key(0))
        return networks, np.asarray(found)

    def _compiled(self, data: Dataset) -> _Programs:
        """Programs for a number of classes, without the labels and their names."""
        count = data.num_classes
        if count not in self._programs:
            config = self.config
            training = config.training
            if config.active.acquisition in COMMITTEE:
                training = dataclasses.replace(training, seeds=config.active.committee)
            made = programs.make(config.model, training, data)
            key = jax.random.fold_in(jax.random.key(config.seed), rounds.EMBEDDING)
            given = made.model, data, lambda: None, key
            choose = query.make_choose(config.active, *given)
            mean = functools.partial(
                monte_carlo.mean_probabilities, made.model, has_tags=data.has_tags
            )
            chunk = config.active.chunk
            predict = monte_carlo.over_pool(mean, data.train, chunk)
            self._programs[count] = _Programs(made, choose, predict)
        return self._programs[count]

    def choose(
        self,
        data: Dataset,
        train: Int[np.ndarray, " l"],
        networks: Network | None,
        free: Sequence[str],
        count: int,
        number: int,
    ) -> tuple[str, ...]:
        """Chooses a batch: some recordings for validation, the others to train on."""
        settings = self.config.session
        place = {n: sessions.held_out(self.clips[n], settings.validation) for n in free}
        drawn = sorted((n for n in free if place[n] < 1), key=place.__getitem__)
        pool = [name for name in free if place[name] >= 1]
        share = min(round(settings.validation * count), len(drawn))
        share = max(share, count - len(pool))
        count -= share
        chosen = drawn[:share]
        rows = {name: i for i, name in enumerate(self.names)}
        if count:
            of_pool = np.array(sorted(rows[name] for name in pool))
            key = jax.random.key(self.config.seed)
            keys = [
                rounds.key_of(key, one, number)
                for one in (rounds.PASSES, rounds.CHOICE)
            ]
            choose = (
                self._compiled(data).choose if networks is not None else self._cover
            )
            given = np.union1d(of_pool, train)
            found = choose(networks, train, count, *keys, given)
            chosen += [self.names[row] for row in found]
        # Nothing tells the person which recordings are for validation.
        order = np.random.default_rng(self._seed(number)).permutation(len(chosen))
        return tuple(chosen[i] for i in order)

    @functools.cached_property
    def _cover(self) -> Any:
        """Chooses typical recordings that cover the others, without a network."""
        settings = self.config.session
        # ProbCover takes as many pseudo-classes as a batch has recordings.
        data = self._blank(tuple(map(str, range(max(2, settings.batch)))))
        config = dataclasses.replace(self.config.active, acquisition=settings.first)
        key = jax.random.fold_in(jax.random.key(self.config.seed), rounds.EMBEDDING)
        return query.make_choose(config, None, data, lambda: None, key)

    def _blank(self, class_names: tuple[str, ...]) -> Dataset:
        """The recordings without labels."""
        clips, features = self._all_clips, self.stored.config
        shape = (0, *clips.image_shape, 1)
        width = (len(class_names),) if self.config.session.tags else ()
        kind = jnp.int8 if width else jnp.int32
        labels = lambda count: jnp.zeros((count, *width), kind)
        none = Clips(jnp.zeros(shape), labels(0))
        return Dataset(
            train=clips._replace(labels=labels(len(self.names))),
            validation=none,
            test=none,
            class_names=class_names,
            normalization=self._statistics,
            features=features,
            noise=None,
            fold=0,
            is_partial=False,
            name="folder",
            own_name=datasets.title_of(self.config.data),
            version=self.stored.version,
            licence=self.stored.licence,
            seconds=self.stored.seconds,
            train_bytes=int(self.stored.raw_bytes.sum()),
            scored_by="auto" if width else "accuracy",
            is_embedded=self.is_embedded,
        )

    @functools.cached_property
    def _statistics(self) -> normalization.Normalization:
        """Statistics of the recordings outside of the validation part."""
        share = self.config.session.validation
        rows = [
            i
            for i, name in enumerate(self.names)
            if sessions.held_out(self.clips[name], share) >= 1
        ]
        kind = "per_bin" if self.is_embedded else self.config.features.normalization
        moments = self.stored.moments
        return normalization.fit(moments[:, rows] if rows else moments, kind)

    @functools.cached_property
    def _all_clips(self) -> Clips:
        rows = np.arange(len(self.names))
        storage = self.config.data.storage
        return dataset.clips_of(self.stored, rows, self._statistics, storage)

    def _seed(self, number: int) -> int:
        key = rounds.key_of(jax.random.key(self.config.seed), rounds.NETWORK, number)
        return int(jax.random.bits(key, dtype=jnp.uint32))


def is_trainable(data: Dataset, train: Int[np.ndarray, " l"]) -> bool:
    """Returns whether the labels of some rows differ, so that there is a lesson."""
    labels = np.asarray(data.train.labels)[train]
    return len(np.unique(labels, axis=0)) > 1


def scores(
    found: Prediction, labels: Int[np.ndarray, "v *c"], rows: Int[np.ndarray, " v"]
) -> dict[str, float]:
    """Scores predictions on the validation part, with a 95 % interval."""
    if not rows.size:
        return {}
    outputs = found.probabilities[rows]
    if found.has_tags:
        estimate = metric.estimate(jnp.asarray(outputs), jnp.asarray(labels))
        share, error = float(estimate.mean), 1.96 * float(estimate.error)
        low, high = max(0.0, share - error), min(1.0, share + error)
    else:
        share = float((outputs.argmax(1) == labels).mean())
        low, high = stopping.interval(share, rows.size)
    names = ("validation_accuracy", "validation_low", "validation_high")
    return dict(zip(names, (share, low, high), strict=True))
