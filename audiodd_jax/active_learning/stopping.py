"""Advice on when to stop labelling, and the interval of a measured accuracy.

References:
  Stabilising predictions: Bloodgood and Vijay-Shanker, *A Method for Stopping Active
  Learning Based on Stabilizing Predictions and the Need for User-Adjustable Stopping*,
  CoNLL 2009. Agreement: Cohen, *A Coefficient of Agreement for Nominal Scales*, 1960.
  Interval: Wilson, *Probable Inference, the Law of Succession, and Statistical
  Inference*, 1927.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

# Mean agreement of so many pairs of successive networks that ends labelling.
STABLE, PAIRS = 0.99, 3
_Z = 1.96


def interval(share: float, count: int) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of a share of ``count`` trials."""
    if not count:
        return 0.0, 1.0
    spread = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    centre, scale = share + _Z**2 / (2 * count), 1 + _Z**2 / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def agreement(before: Shaped[np.ndarray, " b"], now: Shaped[np.ndarray, " b"]) -> float:
    """Returns Cohen's kappa of two predictions; 1 if both are one same class."""
    names = np.union1d(before, now)
    share = lambda values: np.array([(values == name).mean() for name in names])
    by_chance = float(np.sum(share(before) * share(now)))
    observed = float((before == now).mean())
    return 1.0 if by_chance == 1 else (observed - by_chance) / (1 - by_chance)


def advice(agreements: Sequence[float]) -> str:
    """Returns one sentence on whether another batch is likely to help.

    Labelling may stop once the predictions of successive networks, on all recordings,
    agree with a mean kappa of 0.99 over three pairs.
    """
    source = "(stabilising predictions, Bloodgood and Vijay-Shanker 2009)"
    if len(agreements) < PAIRS:
        return (
            f"Too early to say whether more labels help: the rule compares {PAIRS} "
            f"pairs of successive networks, and so far has {len(agreements)} {source}."
        )
    mean = sum(agreements[-PAIRS:]) / PAIRS
    if mean >= STABLE:
        return (
            "Another batch is unlikely to help: the last networks agree on the "
            f"recordings with a kappa of {mean:.3f}, at least {STABLE} {source}."
        )
    return (
        "Another batch is likely to help: the last networks agree on the recordings "
        f"with a kappa of {mean:.3f}, below {STABLE} {source}."
    )
