"""Labels of the rows of tables: which are classes or tags, and their order."""

import collections
import itertools
import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any

from audiodd_jax.data.names import label_name, label_names
from audiodd_jax.data.tables import TAG_SEPARATOR, Row

_log = logging.getLogger(__name__)

# Marks that separate tags or belong to a name, besides the semicolon.
_OTHER_SEPARATORS = {",": "commas", "|": "bars"}


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
    for other in () if has_tags else _OTHER_SEPARATORS:
        if _are_separated(rows, cells, other):
            separator, has_tags = other, True
    _check_numbers(rows, cells)

    def read(row: Row, cell: str | list[str] | tuple[str]) -> tuple[str, ...]:
        if not has_tags:
            row.check("label")
        if isinstance(cell, str):
            # Next to [dog, siren], [dog] is a list too.
            cell = cell.strip("[]" if has_lists else "")
            cell = cell.split(separator) if has_tags else [cell]
        return label_names(cell)

    return [read(*pair) for pair in zip(rows, cells, strict=True)], has_tags


def _check_numbers(rows: Sequence[Row], cells: Sequence[Any]) -> None:
    """Refuses -1 next to numbers of classes, and lists of zeros and ones."""
    texts = {cell.removesuffix(".0") for cell in cells if isinstance(cell, str)}
    are_numbers = all(re.fullmatch(r"-?\d+", text) for text in texts)
    if are_numbers and "-1" in texts and not texts <= {"-1", "1"}:
        row = next(row for row in rows if row.label in ("-1", "-1.0"))
        raise row.error(
            "the label -1 often means that the class is unknown: remove such rows, or "
            "write the names of classes instead of numbers"
        )
    lists = [cell for cell in cells if isinstance(cell, list)]
    if all({*cell} <= {"0", "1"} for cell in lists):
        are_equally_long = len({*map(len, lists)}) == 1
        if are_equally_long and any(len({*cell}) < len(cell) for cell in lists):
            raise rows[0].error(
                f"the label {lists[0]} looks like one number for each class: write the "
                "names of the tags instead"
            )


def warn_of_similar(class_names: Iterable[str]) -> None:
    """Warns of classes whose names differ in capital letters or spaces alone."""
    alike = collections.defaultdict(list)
    for name in class_names:
        alike[re.sub(r"[\s_-]+", " ", name).casefold()].append(name)
    for names in alike.values():
        if len(names) > 1:
            _log.warning(
                "%s are different classes: give them one name if they are the same",
                " and ".join(map(repr, names)),
            )


def _are_separated(rows: Sequence[Row], cells: Sequence[Any], separator: str) -> bool:
    """Returns whether commas separate tags; otherwise they belong to names of classes.

    They do in a column ``labels`` or ``tags``, and if most parts are also labels by
    themselves. They are part of names if no part is, and parts do not recombine. The
    ``separator`` is a comma, or a bar, for which the same holds.

    Raises:
      UserError: neither.
    """
    first: dict[str, Row] = {}
    for row, cell in zip(rows, cells, strict=True):
        if isinstance(cell, str) and separator in cell:
            first.setdefault(cell, row)
    if not first:
        return False
    parts = [[part.strip() for part in text.split(separator)] for text in first]
    counts = collections.Counter(itertools.chain(*parts))
    alone = counts.keys() & {cell for cell in cells if isinstance(cell, str)}
    example, row = next(iter(first.items()))
    tags = TAG_SEPARATOR.join(parts[0])
    if any("labels" in row.cells for row in rows) or 2 * len(alone) > len(counts):
        marks = _OTHER_SEPARATORS[separator]
        _log.warning("%s separate tags, so %r is %s", marks, example, tags)
        return True
    # "Speech, male" and "Speech, female", but not "dog,siren" and "dog,rain".
    spaced = f"{separator} "
    is_prose = all(text.count(spaced) == text.count(separator) for text in first)
    later = itertools.chain(*(p[1:] if is_prose else p for p in parts))
    if alone or max(counts[part] for part in later) > 1:
        raise row.error(
            f"the label {example!r} could be tags or one class: write {tags} for tags, "
            f"and the name of a class without {_OTHER_SEPARATORS[separator]}"
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
