"""How well a coreset serves: accuracy on the test split, over seeds."""

import statistics
from typing import NamedTuple

import jax

from audiodd_jax.config import Config
from audiodd_jax.distillation.coreset import CoresetArrays
from audiodd_jax.features.prepared import Split
from audiodd_jax.kernels import regression

# Networks that score are never those that distilled, whatever the seeds.
_EVALUATION = 0x7E57


class Evaluation(NamedTuple):
    """Accuracies of one protocol.

    Attributes:
      protocol: its name.
      accuracies: one a seed.
    """

    protocol: str
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float:
        """Sample standard deviation over seeds; 0 for a single one."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0

    def __str__(self) -> str:
        seeds = len(self.accuracies)
        deviation = f" ± {100 * self.std:.1f}" if seeds > 1 else ""
        return f"{100 * self.mean:.1f}{deviation} %"


def kernel_regression(
    coresets: list[CoresetArrays], test: Split, config: Config
) -> list[Evaluation]:
    """Kernel ridge regression with fresh random networks (``--protocol=krr``).

    The coresets, which must have one shape, share the program and the networks, so
    that they are compared on the same draws.
    """
    settings = config.evaluation
    network = config.network
    if settings.width:
        network = type(network)(**{**vars(network), "width": settings.width})

    @jax.jit
    def accuracy(seed: jax.Array, arrays: CoresetArrays, test: Split) -> jax.Array:
        predictions = regression.predict(
            jax.random.fold_in(jax.random.key(_EVALUATION), seed),
            test.images,
            arrays.images,
            arrays.labels,
            num_networks=settings.networks,
            config=network,
            regularizer=config.rfad.regularizer,
            chunk=settings.batch_size,
        )
        return regression.score(predictions, test.labels).accuracy

    return [
        Evaluation(
            "krr",
            tuple(float(accuracy(s, arrays, test)) for s in range(settings.seeds)),
        )
        for arrays in coresets
    ]
