"""Scores on the test split over seeds, of networks and of kernel regression."""

import dataclasses
import functools
import logging
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from audiodd_jax.config import Config
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.features.dataset import Split
from audiodd_jax.kernels import exact_matrix, infinite_width, ridge, ridge_scoring
from audiodd_jax.networks.inference import CLIPS_AT_ONCE, Network, logits
from audiodd_jax.runtime import devices
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.runtime.memory import memory_of, memory_share
from audiodd_jax.training import metrics
from audiodd_jax.training.fit import Fitted

_log = logging.getLogger(__name__)

# Folded into the key, so that evaluation never uses the networks of distillation.
_EVALUATION = 0x7E57


class Evaluation(NamedTuple):
    """Scores of one protocol.

    Attributes:
      protocol: its name.
      accuracies: one per seed or fold.
      confusions: ``[k, c, c]`` clips by class (rows) and prediction, per seed; None if
        the accuracies are means.
    """

    protocol: str
    accuracies: tuple[float, ...]
    confusions: Int[np.ndarray, "k c c"] | None = None

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float:
        """Sample standard deviation over seeds; 0 for a single seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0

    @property
    def interval(self) -> float:
        """Half width of the 95 % confidence interval; NaN for a single seed."""
        return metrics.interval95(self.accuracies)

    @property
    def per_class(self) -> Float[np.ndarray, " c"]:
        """Accuracy per class, over all seeds."""
        return metrics.per_class_accuracy(self.confusions.sum(0))

    @property
    def macro_f1(self) -> float:
        """Macro F1, mean over seeds."""
        return statistics.fmean(map(metrics.macro_f1, self.confusions))

    def __str__(self) -> str:
        seeds = len(self.accuracies)
        deviation = f" ± {100 * self.std:.1f}" if seeds > 1 else ""
        return f"{100 * self.mean:.1f}{deviation} %"

    def summary(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """All scores as JSON values."""
        interval = self.interval
        result = {
            "protocol": self.protocol,
            "test_accuracy": self.mean,
            "test_accuracy_std": self.std,
            "test_accuracy_interval95": None if np.isnan(interval) else interval,
            "test_accuracies": self.accuracies,
        }
        if self.confusions is None:
            return result
        shares = [None if np.isnan(share) else share for share in self.per_class]
        return {
            **result,
            "macro_f1": self.macro_f1,
            "per_class_accuracy": dict(zip(class_names, shares, strict=True)),
            "confusions": self.confusions.tolist(),
        }


def from_summary(summary: dict[str, Any]) -> Evaluation:
    """Inverse of ``Evaluation.summary``, for networks."""
    confusions = np.array(summary["confusions"])
    return Evaluation(
        summary["protocol"], tuple(summary["test_accuracies"]), confusions
    )


def from_predictions(
    protocol: str,
    predicted: Int[Array | np.ndarray, "k b"],
    labels: Int[Array | np.ndarray, " b"],
    num_classes: int,
) -> Evaluation:
    """The evaluation of predicted classes, one row per seed.

    Args:
      protocol: its name.
      predicted: classes.
      labels: true classes.
      num_classes: ``c``.
    """
    labels = np.asarray(labels)
    confusions = np.stack(
        [
            metrics.confusion_matrix(row, labels, num_classes)
            for row in np.asarray(predicted)
        ]
    )
    hits = np.trace(confusions, axis1=1, axis2=2) / len(labels)
    return Evaluation(protocol, tuple(hits.tolist()), confusions)


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """The evaluation over the seeds of several evaluations."""
    return Evaluation(
        parts[0].protocol,
        tuple(accuracy for part in parts for accuracy in part.accuracies),
        np.concatenate([part.confusions for part in parts]),
    )


def kernel_regression(
    coresets: list[CoresetArrays],
    test: Split,
    config: Config,
    seeds: Sequence[int] | None = None,
    mesh: Mesh | None = None,
) -> list[Evaluation]:
    """Kernel ridge regression with fresh random networks (``--protocol=krr``).

    All coresets are scored with the same networks, and coresets of one shape by one
    compiled program.

    Args:
      coresets: support sets.
      test: test clips.
      config: of the networks and the evaluation.
      seeds: draws of the networks; None: ``0`` to ``config.evaluation.seeds - 1``.
      mesh: devices; None: all, of all processes.

    Raises:
      UserError: the kernels do not fit the memory.
    """
    settings = config.evaluation
    mesh = mesh or devices.make_mesh(settings.networks)
    _check_memory(max(len(c.labels) for c in coresets), len(test.labels))
    predicted = regression_program(config, mesh)
    test, *coresets = devices.replicate([test, *coresets], mesh)
    seeds = range(settings.seeds) if seeds is None else seeds
    return [
        from_predictions(
            "krr",
            np.stack([predicted(np.int32(seed), arrays, test) for seed in seeds]),
            test.labels,
            arrays.labels.shape[1],
        )
        for arrays in coresets
    ]


def regression_program(config: Config, mesh: Mesh) -> jax.stages.Wrapped:
    """The program of ``kernel_regression``: ``(seed, arrays, test)`` to classes."""
    settings = config.evaluation
    # Scores are in float32, whatever the precision of the distillation.
    own = {"width": settings.width or config.network.width, "precision": "float32"}
    network = dataclasses.replace(config.network, **own)

    def predicted(seed: jax.Array, arrays: CoresetArrays, test: Split) -> jax.Array:
        predictions = ridge_scoring.predict(
            jax.random.fold_in(jax.random.key(_EVALUATION), seed),
            test.images,
            arrays.images,
            arrays.labels,
            num_networks=settings.networks,
            config=network,
            regularizer=config.rfad.regularizer,
            chunk=settings.batch_size,
            mesh=mesh,
        )
        return predictions.argmax(1)

    return jax.jit(predicted, out_shardings=devices.replicated(mesh))


def _check_memory(s: int, b: int) -> None:
    """Checks that the kernels of a support set fit the memory of a device.

    Raises:
      UserError: they do not.
    """
    device = jax.local_devices()[0]
    # The sum, a network's term, the scaled kernel and its Cholesky factor.
    needed = 4 * s * (4 * s + 2 * b)
    available = memory_of(device) * memory_share(device.platform)
    if needed > available:
        raise UserError(
            f"kernel regression on {s:,} spectrograms takes {needed / 1e9:.0f} GB, but "
            f"{available / 1e9:.0f} GB are available; use fewer, such as --against=10%"
        )


def exact_regression(
    support: CoresetArrays,
    test: Split,
    kind: str,
    config: Config,
    place: Path | None = None,
    mesh: Mesh | None = None,
) -> Evaluation:
    """Kernel ridge regression with an exact kernel (``--protocol=nngp`` or ``ntk``).

    Nothing is random: there is one score. An interrupted call resumes.

    Args:
      support: support set.
      test: test clips.
      kind: of the kernel.
      config: of the networks and the regulariser.
      place: folder of finished tiles; None: memory only.
      mesh: devices; None: all.

    Raises:
      UserError: neural-tangents is not installed, or one pair exceeds the memory.
      Interrupted: on SIGTERM or SIGINT; finished tiles are saved.
    """
    network, shape = config.network, test.images.shape[1:3]
    infinite_width.make_kernel(network, kind)  # raises before the log line
    at_once = infinite_width.pairs_at_once(shape, is_differentiated=False)
    s, b = support.labels.shape[0], test.labels.shape[0]
    pairs = exact_matrix.count_pairs(s) + exact_matrix.count_pairs(b, s)
    _log.info(
        "%s: %s pairs of spectrograms, at most %s at once on a device",
        *(kind, f"{pairs:,}", f"{at_once:,}"),
    )
    kernel = lambda *images: exact_matrix.matrix(
        network, kind, *images, place=place, mesh=mesh, pairs=at_once
    )
    k_ss = kernel(support.images)
    k_bs = kernel(test.images, support.images)
    predictions = ridge.predict(
        *(jnp.asarray(x) for x in (k_bs, k_ss, support.labels)),
        config.rfad.regularizer,
    )
    found = np.asarray(predictions).argmax(1)[None]
    return from_predictions(kind, found, test.labels, support.labels.shape[1])


def networks(
    fitted: Fitted, test: Split, protocol: str, num_classes: int
) -> Evaluation:
    """Scores trained networks on the test clips.

    Args:
      fitted: networks of all seeds.
      test: test clips.
      protocol: name of the model.
      num_classes: ``c``.
    """
    predicted = prediction_program(fitted.model)
    found = predicted(fitted.networks, test.images)
    return from_predictions(protocol, found, test.labels, num_classes)


@functools.lru_cache(maxsize=4)
def prediction_program(model: nn.Module) -> jax.stages.Wrapped:
    """The program of ``networks``: ``(networks, images)`` to classes ``[k, b]``."""

    @jax.jit
    def predicted(networks: Network, images: Array) -> Array:
        one = lambda network: logits(network, images, model, CLIPS_AT_ONCE).argmax(1)
        return jax.lax.map(one, networks)

    return predicted
