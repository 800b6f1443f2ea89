"""Recordings with identical content under different names."""

import collections
import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from audiodd_jax.data.audio import num_threads

_log = logging.getLogger(__name__)

# Of the names of groups that are made here.
PREFIX = "content of "


def grouped(
    paths: Sequence[Path],
    names: Sequence[str],
    groups: Shaped[np.ndarray, " clips"],
    labels: Int[np.ndarray, "clips *c"],
) -> Shaped[np.ndarray, " clips"]:
    """The groups, merged so that identical files are in one group.

    Args:
      paths: of the recordings.
      names: for messages.
      groups: given ones; empty: none.
      labels: classes or tags; identical files with different ones are logged.
    """
    merged = [str(group) for group in groups]
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while group in parent:
            group = parent[group]
        return group

    for same in _identical(paths):
        if (labels[same] != labels[same[0]]).any():
            _log.warning(
                "%d recordings have the same content and different labels: %s",
                len(same),
                ", ".join(names[i] for i in same[:4]),
            )
        first = f"{PREFIX}{names[same[0]]}"
        for i in same:
            own, target = root(merged[i] or first), root(first)
            if own != target:
                parent[own] = target
            merged[i] = merged[i] or first
    if not parent and merged == list(groups):
        return groups
    return np.array([root(group) if group else "" for group in merged], str)


def _identical(paths: Sequence[Path]) -> list[list[int]]:
    """Indices of files with identical content, for each content of several files."""
    by_size = collections.defaultdict(list)
    for i, path in enumerate(paths):
        if path.is_file():
            by_size[path.stat().st_size].append(i)
    todo = [i for same in by_size.values() if len(same) > 1 for i in same]
    with ThreadPoolExecutor(num_threads()) as pool:
        digests = list(pool.map(lambda i: _digest(paths[i]), todo))
    by_content = collections.defaultdict(list)
    for i, digest in zip(todo, digests, strict=True):
        if digest:
            by_content[digest].append(i)
    return [same for same in by_content.values() if len(same) > 1]


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()
    except OSError:
        return b""  # decoding names the error
