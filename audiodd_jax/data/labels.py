"""Labels of the rows of tables: which are classes or tags, and their order."""

import collections
import itertools
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from audiodd_jax.data.tables import TAG_SEPARATOR, Row, label_name, label_names

_log = logging.getLogger(__name__)


def labels_of(rows: Sequence[Row]) -> tuple[list[tuple[str, ...]], bool]:
    """The labels of each row, and whether they are tags.

    They are tags if any label is a list, has a semicolon, or has commas that separate
    labels. Then an empty label is a clip without tags. Otherwise every row must have a
    label.
    """
    cells = [row.label for row in rows]
    has_lists = any(isinstance(cell, list) for cell in cells)
    texts = [cell for cell in cells if isinstance(cell, str)]
    separator = TAG_SEPARATOR
    has_tags = has_lists or any(separator in text for text in texts)
    if not has_tags and _are_separated_by_commas(rows, cells):
        separator, has_tags = ",", True

    def read(row: Row, cell: str | list[str] | tuple[str]) -> tuple[str, ...]:
        if not has_tags:
            row.check("label")
        if isinstance(cell, str):
            # Next to [dog, siren], [dog] is a list too.
            cell = cell.strip("[]" if has_lists else "")
            cell = cell.split(separator) if has_tags else [cell]
        return label_names(cell)

    return [read(*pair) for pair in zip(rows, cells, strict=True)], has_tags


def _are_separated_by_commas(rows: Sequence[Row], cells: Sequence[Any]) -> bool:
    """Returns whether commas separate tags; otherwise they belong to names of classes.

    They do in a column ``labels`` or ``tags``, and if most parts are also labels by
    themselves. They are part of names if no part is, and parts do not recombine.

    Raises:
      UserError: neither.
    """
    first: dict[str, Row] = {}
    for row, cell in zip(rows, cells, strict=True):
        if isinstance(cell, str) and "," in cell:
            first.setdefault(cell, row)
    if not first:
        return False
    parts = [[part.strip() for part in text.split(",")] for text in first]
    counts = collections.Counter(itertools.chain(*parts))
    alone = counts.keys() & {cell for cell in cells if isinstance(cell, str)}
    example, row = next(iter(first.items()))
    tags = TAG_SEPARATOR.join(parts[0])
    if any("labels" in row.cells for row in rows) or 2 * len(alone) > len(counts):
        _log.warning("commas separate tags, so %r is %s", example, tags)
        return True
    # "Speech, male" and "Speech, female", but not "dog,siren" and "dog,rain".
    is_prose = all(text.count(", ") == text.count(",") for text in first)
    later = itertools.chain(*(p[1:] if is_prose else p for p in parts))
    if alone or max(counts[part] for part in later) > 1:
        raise row.error(
            f"the label {example!r} could be tags or one class: write {tags} for tags, "
            "and the name of a class without commas"
        )
    _log.warning(
        "%r is read as one class, since no part of it is a label by itself; write %s "
        "for tags",
        example,
        tags,
    )
    return False


def class_order(
    names: Iterable[str], rows: Sequence[Row], given: Sequence[str]
) -> tuple[str, ...]:
    """Sorts classes as the data orders them: by ``given`` names, or by number."""
    place = {label_name(name): i for i, name in enumerate(given)}
    names = set(names)
    is_number = all(map(str.isdecimal, names)) and not any(
        isinstance(row.cells.get("label"), str) for row in rows
    )
    number = lambda name: int(name) if is_number else 0
    key = lambda name: (place.get(name, len(place)), number(name), name)
    return tuple(sorted(names, key=key))
