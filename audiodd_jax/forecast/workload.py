"""The sizes and settings that determine what a command computes."""

import dataclasses
from typing import Any, NamedTuple

from audiodd_jax.active_learning import labelled_subset
from audiodd_jax.config import Config, fields
from audiodd_jax.coreset import budget
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
    for labelling. ``sizes.scored`` counts the ``validation`` clips and the test clips.
    """

    config: Config
    sizes: Sizes
    validation: int
    learns_from: int = 0
    pool: int = 0

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
        data = dataset.load(config.data, config.features)
        data = labelled_subset.restrict(config, data)
        if limited:
            settings = fields.record(config, fields.DISTILLATION)
            config = fields.replace(config, budget.changes(settings, data))
        train, validation = len(data.train.labels), len(data.validation.labels)
        tested, shape = len(data.test.labels), data.image_shape
        classes, has_tags = data.num_classes, data.has_tags
    else:
        cached = cache.prepare(config.data, config.features)
        parts = splits.assign(
            cached.labels, cached.splits, cached.folds, cached.groups, config.data
        )
        train, validation, tested = (part.size for part in parts)
        shape, classes = cached.features.shape[1:3], len(cached.class_names)
        has_tags = tags.are_tags(cached.labels)
    registry.check_labels(config.method, has_tags)
    check_factor(shape, config.coreset.factor)
    sizes = cost.sizes_of(config, shape, classes, train, validation + tested)
    return Workload(config, sizes, validation)
