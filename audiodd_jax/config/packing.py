"""Packing of shorter spectrograms in the images of a coreset, and numbers of bytes."""

import re
from typing import NamedTuple

# The setting ``coreset.factor``, such as 2, "2x2" or "2x2:1".
Factor = int | str
_UNITS = {"": 1, "k": 1000, "ki": 1024, "m": 10**6, "mi": 2**20}


class Packing(NamedTuple):
    """Spectrograms of ``1/mel`` of the mel bins and ``1/frames`` of the frames.

    An image of full size holds ``mel * frames`` of them, low bins first. If
    ``is_single``, each is an image of its own, of a smaller size.
    """

    mel: int = 1
    frames: int = 1
    is_single: bool = False

    @classmethod
    def parse(cls, factor: Factor) -> "Packing":
        """Parses ``coreset.factor``; raises ValueError for other values."""
        match = re.fullmatch(r"(?:(\d+)x)?(\d+)(:1)?", str(factor))
        if not match or not all(map(int, match.groups("1")[:2])):
            raise ValueError(f"{factor!r} is no packing factor")
        mel, frames = map(int, match.groups("1")[:2])
        return cls(mel, frames, bool(match[3]) and mel * frames > 1)

    @property
    def setting(self) -> Factor:
        """The setting in its shortest form, an integer along time alone."""
        if self.mel == 1 and not self.is_single:
            return self.frames
        return f"{self.mel}x{self.frames}" + ":1" * self.is_single

    @property
    def grid(self) -> tuple[int, int]:
        """Spectrograms in an image, along mel bins and along time."""
        return (1, 1) if self.is_single else (self.mel, self.frames)

    @property
    def pieces(self) -> int:
        """Spectrograms of this size in an image of full size."""
        return self.mel * self.frames

    @property
    def per_image(self) -> int:
        """Spectrograms in an image."""
        return self.grid[0] * self.grid[1]

    def image_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Returns the shape of stored images, for spectrograms ``[f, t]``."""
        if not self.is_single:
            return shape
        return shape[0] // self.mel, shape[1] // self.frames


def is_factor(value: Factor) -> bool:
    """Returns whether a value is a packing factor."""
    try:
        Packing.parse(value)
    except ValueError:
        return False
    return True


def bytes_of(text: str) -> int:
    """Parses bytes such as ``16kB``, ``64 KiB`` or ``1MB``; 0 for other text."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(|k|ki|m|mi)b?\s*", text.lower())
    return int(float(match[1]) * _UNITS[match[2]]) if match else 0
