"""What a coreset gains over random clips, in two measures.

The improvement over random clips is that over clips with the same labels and recipe,
and so is due to the spectrograms. The share of the gap closed relates it to what can be
gained at all: 0 is random clips with their own hard labels, 1 is all training clips.
"""

from collections.abc import Mapping

# Appended to a baseline's name: its clips with the labels of the coreset's teacher.
RELABELLED = "+teacher"


def over_random(accuracies: Mapping[str, float]) -> float | None:
    """Improvement of the coreset over random clips with labels of the same kind.

    Args:
      accuracies: by training set: ``coreset``, ``random`` and so on.

    Returns:
      A difference of accuracies, or None if the table lacks a row that it needs.
    """
    same = "random" + RELABELLED
    base = accuracies.get(same, accuracies.get("random"))
    if base is None or "coreset" not in accuracies:
        return None
    return accuracies["coreset"] - base


def gap_closed(accuracies: Mapping[str, float], name: str = "coreset") -> float | None:
    """Share of the gap between random and all clips that a training set closes.

    Args:
      accuracies: by training set: ``coreset``, ``random``, ``all`` and so on.
      name: the training set.

    Returns:
      A share, negative below random clips, or None if a row is missing or there is no
      gap.
    """
    if not {"random", "all", name} <= accuracies.keys():
        return None
    gap = accuracies["all"] - accuracies["random"]
    return (accuracies[name] - accuracies["random"]) / gap if gap > 0 else None
