"""Paths as users write them."""

import os


def expanded(text: str) -> str:
    """Replaces ``~`` by a home folder, unless a file or folder has this very name."""
    return text if os.path.exists(text) else os.path.expanduser(text)


def from_anywhere(text: str) -> str:
    """Returns the absolute path, so that other working folders find it; keeps URLs."""
    is_local = text and "://" not in text
    return os.path.abspath(expanded(text)) if is_local else text
