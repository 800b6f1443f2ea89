"""The sizes and settings that determine what a command computes."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from audiodd_jax.active_learning import labelled_subset
from audiodd_jax.config import Config, fields
from audiodd_jax.coreset import budget
from audiodd_jax.coreset import sizes as coreset_sizes
from audiodd_jax.coreset.arrays import check_factor
from audiodd_jax.data import splits, tags
from audiodd_jax.distillation import cost, registry
from audiodd_jax.distillation.cost import Sizes
from audiodd_jax.features import cache, dataset
from audiodd_jax.forecast import compilers
from audiodd_jax.forecast.targets import Target


class Workload(NamedTuple):
    """The settings and sizes that the programs of a command depend on.

    A network trains on ``learns_from`` clips or spectrograms; ``pool`` clips are scored
    for labelling. ``sizes.scored`` counts the ``validation`` clips and the test clips;
    ``shortage`` names classes with too few clips for the coreset.
    """

    config: Config
    sizes: Sizes
    validation: int
    learns_from: int = 0
    pool: int = 0
    shortage: str = ""

    @property
    def train(self) -> int:
        """Number of training clips; those of a batch if clips are streamed."""
        return self.sizes.train or self.sizes.b

    @property
    def tested(self) -> int:
        """Number of test clips, at least one."""
        return max(1, self.sizes.scored - self.validation)

    def to_json(self) -> dict[str, Any]:
        """Returns the workload as JSON values."""
        return {**self._asdict(), "config": dataclasses.asdict(self.config)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Workload":
        """Reads the workload from JSON values."""
        config, sizes = fields.from_dict(values["config"]), Sizes(*values["sizes"])
        return cls(**{**values, "config": config, "sizes": sizes})


def measure(config: Config, target: Target | None = None) -> Workload:
    """Prepares the dataset, and returns the workload of a run on it.

    Raises:
      UserError: the target's compiler is not installed, or the dataset cannot be used,
        at all or by the method.
    """
    if target:
        compilers.versions(target.chip.kind)
    limited = config.coreset.budget
    if config.labels.is_part or limited:
        is_session = bool(config.labels.run)
        data = dataset.load(config.data, config.features, with_unlabelled=is_session)
        data = labelled_subset.restrict(config, data)
        if limited:
            settings = fields.record(config, fields.DISTILLATION)
            config = fields.replace(config, budget.changes(settings, data))
        train, validation = len(data.train.labels), len(data.validation.labels)
        tested, shape = len(data.test.labels), data.image_shape
        labels, names = np.asarray(data.train.labels), data.class_names
    else:
        cached = cache.prepare(config.data, config.features)
        parts = splits.assign(
            cached.labels, cached.splits, cached.folds, cached.groups, config.data
        )
        train, validation, tested = (part.size for part in parts)
        shape, names = cached.features.shape[1:3], cached.class_names
        labels = cached.labels[parts.train]
    registry.check_labels(config.method, tags.are_tags(labels))
    check_factor(shape, config.coreset.factor)
    asked = config.coreset, config.method, tags.counts(labels, len(names)), names
    stored = coreset_sizes.of_classes(*asked)
    sizes = cost.sizes_of(config, shape, stored, train, validation + tested)
    shortage = coreset_sizes.shortage(*asked)
    return Workload(config, sizes, validation, shortage=shortage)
