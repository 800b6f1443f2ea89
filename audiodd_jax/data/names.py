"""The meaning of names of files, folders, splits and classes, as text of one form."""

import re
import unicodedata
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar

from audiodd_jax.data.recordings import TEST, TRAIN, VALIDATION
from audiodd_jax.errors import UserError

Place = dict[str, Any]  # the split or fold of clips, if any
K = TypeVar("K", bound=Hashable)

_SPLITS = {
    "train": TRAIN,
    "training": TRAIN,
    "validation": VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    "development": VALIDATION,
    "test": TEST,
    "testing": TEST,
    "eval": TEST,
    "evaluation": TEST,
    "holdout": TEST,
}
_DEVELOPMENT = ("dev", "development")
_FOLD = r"fold[ _-]?(\d{1,4})"
# The number of a file of several, and a digest, as on the Hub.
_SHARD = re.compile(r"-\d{5}-of-\d{5}.*")


def plain(value: Any) -> str:
    """A value of any type as text: whole numbers without a point, no value as ""."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text.strip()


def split_name(text: str) -> str:
    """The canonical name of a split; empty if ``text`` is not a split."""
    return _SPLITS.get(text.lower(), "")


def named_part(name: str) -> Place:
    """The ``split`` or ``fold`` that a folder or file is named after, if any."""
    if fold := re.fullmatch(_FOLD, name, re.IGNORECASE):
        return {"fold": int(fold[1])}
    return {"split": split} if (split := split_name(name)) else {}


def part_in(name: str) -> Place:
    """The split or fold in a name as on the Hub: ``NAME_train``, ``partial-train``.

    Raises:
      UserError: several splits.
    """
    name = _SHARD.sub("", name)
    found = {split_name(word) for word in _words(name)} - {""}
    if len(found) > 1:
        raise UserError(
            f"the name {name!r} has the splits {' and '.join(sorted(found))}: rename it"
        )
    fold = re.search(rf"(?<![a-z]){_FOLD}(?!\d)", name, re.IGNORECASE)
    part = {"fold": int(fold[1])} if fold else {}
    return {"split": found.pop(), **part} if found else part


def in_words(place: Place) -> str:
    """The split or fold in words: ``train``, ``fold 1``."""
    fold = [f"fold {place['fold']}"] if "fold" in place else []
    return " ".join([*([place["split"]] if "split" in place else []), *fold])


def _words(name: str) -> list[str]:
    return re.split(r"[^A-Za-z]+", name.lower())


def development_is_training(
    places: Mapping[K, Place], names: Mapping[K, str]
) -> dict[K, Place]:
    """The places, where ``dev`` with ``eval`` or ``test`` alone is for training.

    As in FSD50K and DCASE; next to a training split, it is for validation.
    """
    splits = {place.get("split") for place in places.values()}
    if TRAIN in splits or TEST not in splits:
        return dict(places)
    is_development = lambda key: not {*_DEVELOPMENT}.isdisjoint(_words(names[key]))
    return {
        key: {**place, "split": TRAIN} if is_development(key) else place
        for key, place in places.items()
    }


def printable(name: str) -> str:
    """Escapes the bytes of a file name that are not UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def label_name(text: str) -> str:
    """A label in one Unicode form; bytes that are not UTF-8 are escaped."""
    return unicodedata.normalize("NFC", printable(text))


def label_names(texts: Iterable[str]) -> tuple[str, ...]:
    """The labels of a clip, sorted, without repeats and empty ones."""
    stripped = map(str.strip, texts)
    return tuple(sorted({label_name(text) for text in stripped if text}))
