"""The layout of a published dataset: its archive, files and counts."""

import collections
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from audiodd_jax.config import DataConfig
from audiodd_jax.data import datasets
from audiodd_jax.data.clips import Clip
from audiodd_jax.errors import UserError

_log = logging.getLogger(__name__)


class Contents(NamedTuple):
    """The clips of a dataset that are in a folder.

    Attributes:
      clips: in a fixed order.
      missing: names in the dataset's lists without a file.
      noise: recordings of background noise, which belong to no class.
    """

    clips: list[Clip]
    missing: list[str]
    noise: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Layout:
    """A dataset, or a variant of one, as published.

    Attributes:
      name: name in the registry.
      version: version of the dataset, with its variant.
      class_names: names in the order of the labels.
      markers: files or folders, one of which identifies the dataset's folder.
      holds: content of the folder, in words.
      find: folder -> the clips in it.
      published: (class, part) -> number of clips; an empty class or part means all.
      archive: file name of the published archive.
      url: address of the archive; empty if users download it themselves.
      checksum: digest of the archive as ``algorithm:hexdigest``; empty: not checked.
      max_bytes: upper limit of the unpacked size.
      advice: instructions for users who have to get the archive themselves.
      may_change: the URL serves the head of a branch; another checksum is then logged
        instead of refused.
    """

    name: str
    version: str
    class_names: tuple[str, ...]
    markers: tuple[str, ...]
    holds: str
    find: Callable[[Path], Contents]
    published: Mapping[tuple[str, str], int]
    archive: str
    url: str
    checksum: str
    max_bytes: int
    advice: str
    may_change: bool = False


def first_existing(folder: Path, names: Sequence[str]) -> Path:
    """Returns the first of some paths below ``folder`` that exists, or else the first.

    Datasets and their mirrors have the same files in different places.
    """
    paths = [folder / name for name in names]
    return next((path for path in paths if path.exists()), paths[0])


def listed(
    clips: list[Clip], table: Path, class_names: Sequence[str], folds: int
) -> Contents:
    """Separates the clips of a table whose files exist from those that are missing.

    Raises:
      UserError: an unknown class or fold, or a duplicate clip.
    """
    names = set()
    for clip in clips:
        [class_name] = clip.labels
        if class_name not in class_names:
            raise UserError(
                f"{table}: {clip.name} has the unknown class {class_name!r}"
            )
        if not 1 <= clip.fold <= folds:
            raise UserError(f"{table}: {clip.name} has the unknown {clip.part!r}")
        if clip.name in names or Path(clip.name).name != clip.name:
            raise UserError(
                f"{table}: {clip.name} is listed twice or is not a file name"
            )
        names.add(clip.name)
    # One listing per folder: 100,000 calls of stat take seconds.
    files = {
        path
        for folder in {clip.path.parent for clip in clips}
        if folder.is_dir()
        for path in folder.iterdir()
    }
    return Contents(
        [clip for clip in clips if clip.path in files],
        [clip.name for clip in clips if clip.path not in files],
    )


def check(layout: Layout, contents: Contents, folder: Path, config: DataConfig) -> None:
    """Compares the clips in a folder with the published lists and counts.

    Raises:
      UserError: counts differ, and ``allow_partial`` is not set.
    """
    title = datasets.lookup(layout.name).title
    if not contents.clips:
        raise UserError(
            f"{folder} holds no clip of {title}; it should hold {layout.holds}"
        )
    missing = contents.missing
    wrong = []
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        names = ", ".join(missing[:5])
        wrong.append(f"{len(missing)} recordings are missing, {names}{more}")
    wrong += _wrong_counts(layout.published, contents.clips)
    if not wrong:
        return
    text = f"{folder} does not match {title} as published: {'; '.join(wrong)}"
    if not config.allow_partial:
        raise UserError(f"{text}; complete it, or pass --allow_partial to use it as is")
    _log.warning("%s; using it as is", text)


def _wrong_counts(
    published: Mapping[tuple[str, str], int], clips: list[Clip]
) -> Iterator[str]:
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for clip in clips:
        for class_name in ("", clip.labels[0]):
            for part in ("", clip.part):
                counts[class_name, part] += 1
    wrong = [
        f"{' in '.join(filter(None, key)) or 'all'}: {counts[key]} of {expected} clips"
        for key, expected in published.items()
        if counts[key] != expected
    ]
    yield from wrong[:6]
    if len(wrong) > 6:
        yield f"and {len(wrong) - 6} more counts"
