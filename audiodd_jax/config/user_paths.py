"""Paths as users write them."""

import os


def expanded(text: str) -> str:
    """Replaces ``~`` by a home folder, unless a file or folder has this very name."""
    return text if os.path.exists(text) else os.path.expanduser(text)
