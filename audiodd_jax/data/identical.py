"""Recordings with identical content under different names."""

import collections
import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from audiodd_jax.data.audio import num_threads
from audiodd_jax.data.clips import Clip

_log = logging.getLogger(__name__)

# Begins the names of groups of identical recordings.
PREFIX = "content of "


def grouped(clips: Sequence[Clip]) -> list[Clip]:
    """Merges the groups of clips so that identical files are in one group.

    Identical files with different labels are logged.
    """
    groups = [clip.group for clip in clips]
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while group in parent:
            group = parent[group]
        return group

    for same in _identical([clip.path for clip in clips]):
        if any(clips[i].labels != clips[same[0]].labels for i in same):
            _log.warning(
                "%d recordings have the same content and different labels: %s",
                len(same),
                ", ".join(clips[i].name for i in same[:4]),
            )
        first = f"{PREFIX}{clips[same[0]].name}"
        for i in same:
            group, target = root(groups[i] or first), root(first)
            if group != target:
                parent[group] = target
            groups[i] = groups[i] or first
    return [
        clip._replace(group=root(group)) if group else clip
        for clip, group in zip(clips, groups, strict=True)
    ]


def _identical(paths: Sequence[Path]) -> list[list[int]]:
    """Returns the indices of files with identical content, for each such content."""
    by_size = collections.defaultdict(list)
    for i, path in enumerate(paths):
        if path.is_file():
            by_size[path.stat().st_size].append(i)
    candidates = [i for same in by_size.values() if len(same) > 1 for i in same]
    with ThreadPoolExecutor(num_threads()) as pool:
        digests = list(pool.map(lambda i: _digest(paths[i]), candidates))
    by_content = collections.defaultdict(list)
    for i, digest in zip(candidates, digests, strict=True):
        if digest:
            by_content[digest].append(i)
    return [same for same in by_content.values() if len(same) > 1]


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()
    except OSError:
        return b""  # decoding names the error
