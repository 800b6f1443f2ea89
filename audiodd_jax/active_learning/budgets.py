"""How many clips are labelled when: budgets as shares or clips a class."""

import re
from collections.abc import Sequence

from audiodd_jax.runtime.errors import UserError


def clips(text: str, num_train: int, num_classes: int) -> int:
    """The number of clips that a budget means.

    Args:
      text: ``10/class``, or a share of the training split as ``0.2`` or ``20%``.
      num_train: clips of the whole training split, validation included.
      num_classes: ``c``.

    Raises:
      UserError: it is none of these, or no clip, or more than the split.
    """
    if found := re.fullmatch(r"([1-9]\d*)/class", text):
        return int(found[1]) * num_classes
    found = re.fullmatch(r"(\d*\.?\d+)(%?)", text)
    share = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0 < share <= 1:
        raise UserError(
            f"a budget is a share above 0 and at most 1, such as 0.2 or 20%, or clips "
            f"a class, such as 10/class, not {text!r}"
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
    """The number of labelled clips of the pool in each round, from the seed set on.

    Args:
      budgets: in rising order; a round ends on each.
      initial: the seed set's.
      batch: clips that a round labels at most; 0: as many as the next budget asks for.
      num_train: clips of the whole training split, validation included.
      num_classes: ``c``.
      pool: clips that can be labelled.
      counted: validation clips that the budgets include; 0 where they do not.

    Raises:
      UserError: budgets that shrink or exceed the pool, or a seed set that does.
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
                f"budgets rise: {name} is {max(count, 0):,} clips{less}, after "
                f"{before:,} of {names[i - 1]}"
            )
        if count > pool:
            held = f", {num_train - pool:,} of which validate" * (pool < num_train)
            raise UserError(
                f"{name} is {count:,} clips, but {pool:,} can be labelled (the "
                f"training split has {num_train:,}{held})"
            )
    rounds = [counts[0]]
    for count in counts[1:]:
        while rounds[-1] < count:
            step = batch or count
            rounds.append(min(rounds[-1] + step, count))
    return tuple(rounds)
