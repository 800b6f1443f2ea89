r"""Scores of a coreset that separate its images from its labels.

DD-Ranking compares a network trained on a coreset with two others that have the same
recipe. With accuracies as fractions,

    HLR = A(all training clips, hard labels) - A(coreset, hard labels)
    IOR = A(coreset, its labels) - A(random clips, the same kind of labels)
    alpha = w IOR - (1 - w) HLR,    w = 1/2
    LRS = (exp(alpha) - exp(-1)) / (exp(1) - exp(-1))

Hard label recovery (HLR) is what the images lack without the help of soft labels, and
improvement over random (IOR) what they add to such help. The label-robust score (LRS)
lies between 0 and 1. It is 0.27 for a coreset that recovers everything but is no better
than random clips, and for any other with IOR = HLR. The benchmark takes the best epoch
on test clips; here the last step counts.

All differences are paired: the networks of one seed start from the same weights.

References:
  Li et al., *DD-Ranking: Rethinking the Evaluation of Dataset Distillation*, 2025
  (arXiv:2505.13300), and its code, ``NUS-HPC-AI-Lab/DD-Ranking``.
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from audiodd_jax.training.scores import half_width


class Mean(NamedTuple):
    """A quantity of each seed.

    Attributes:
      values: one per seed.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.values)

    @property
    def interval(self) -> float:
        """Half width of its 95 % confidence interval; NaN for fewer than three."""
        return half_width(self.values)


def difference(scores: Sequence[float], others: Sequence[float]) -> Mean:
    """Differences of two networks' scores, seed by seed."""
    return Mean(tuple(a - b for a, b in zip(scores, others, strict=True)))


def label_robust_score(recovery: Mean, improvement: Mean, weight: float = 0.5) -> Mean:
    """The label-robust score of each seed, from its HLR and IOR."""

    def score(hlr: float, ior: float) -> float:
        alpha = weight * ior - (1 - weight) * hlr
        return (math.exp(alpha) - math.exp(-1)) / (math.e - math.exp(-1))

    pairs = zip(recovery.values, improvement.values, strict=True)
    return Mean(tuple(score(*pair) for pair in pairs))
