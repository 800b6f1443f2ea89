"""Budgets of labelled clips, as percentages or clips per class, and their rounds."""

import re
from collections.abc import Sequence

from audiodd_jax.errors import UserError


def clips(text: str, num_train: int, num_classes: int) -> int:
    """Returns the number of clips in a budget.

    Args:
      text: ``10/class``, or a fraction of the training split as ``0.2`` or ``20%``.
      num_train: clips of the training split, as ``Dataset.num_train``.

    Raises:
      UserError: another format, or a fraction outside (0, 1].
    """
    if match := re.fullmatch(r"([1-9]\d*)/class", text):
        return int(match[1]) * num_classes
    match = re.fullmatch(r"(\d*\.?\d+)(%?)", text)
    share = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < share <= 1:
        raise UserError(
            f"a budget is a fraction above 0 and at most 1, such as 0.2 or 20%, or "
            f"clips per class, such as 10/class, not {text!r}"
        )
    return max(1, round(share * num_train))


def plan(
    budgets: Sequence[str],
    initial: str,
    batch: int,
    *,
    num_train: int,
    num_classes: int,
    pool: int,
    counted: int,
) -> tuple[int, ...]:
    """Returns the number of labelled clips in each round, starting with the seed set.

    Args:
      budgets: increasing budgets; a round ends at each of them.
      batch: largest query batch; 0: up to the next budget.
      num_train: clips of the training split, as ``Dataset.num_train``.
      counted: validation clips that count towards the budgets.

    Raises:
      UserError: budgets that do not increase, or exceed the pool.
    """
    if not budgets:
        raise UserError("active learning needs at least one budget")
    size = lambda text: clips(text, num_train, num_classes)
    counts = [size(initial), *(size(text) - counted for text in budgets)]
    names = [f"the seed set {initial}", *(f"the budget {text}" for text in budgets)]
    for i, (name, count) in enumerate(zip(names, counts, strict=True)):
        before = counts[i - 1] if i else 0
        # The first budget may be the seed set itself.
        if count < before or (i > 1 and count == before):
            less = f" (less {counted:,} validation clips)" if counted else ""
            raise UserError(
                f"budgets must increase: {name} is {max(count, 0):,} clips{less}, "
                f"after {before:,} of {names[i - 1]}"
            )
        if count > pool:
            held_out = f", {num_train - pool:,} for validation" * (pool < num_train)
            raise UserError(
                f"{name} is {count:,} clips, but the pool has {pool:,} (the training "
                f"split has {num_train:,}{held_out})"
            )
    rounds = [counts[0]]
    for count in counts[1:]:
        while rounds[-1] < count:
            step = batch or count
            rounds.append(min(rounds[-1] + step, count))
    return tuple(rounds)
