"""The splits that the card of a data set on the Hugging Face Hub declares.

They are in the YAML at the beginning of ``README.md``:

    configs:
    - config_name: default
      data_files:
      - split: train
        path: data/part-a*
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from audiodd_jax.data.names import Place, part_in
from audiodd_jax.errors import UserError

_log = logging.getLogger(__name__)


def splits(root: Path) -> dict[Path, Place]:
    """Returns the files that the card of a folder declares, with their splits.

    Raises:
      UserError: the card declares several configurations, and no default.
    """
    found = [(one, _files(root, one)) for one in _configurations(root)]
    found = [(one, files) for one, files in found if files]
    if len(found) > 1:
        is_default = lambda one: (
            one.get("default") or one.get("config_name") == "default"
        )
        names = ", ".join(str(one.get("config_name")) for one, _ in found)
        found = [(one, files) for one, files in found if is_default(one)]
        if len(found) != 1:
            raise UserError(
                f"{root / 'README.md'} has the configurations {names}: copy the files "
                "of one to a folder of their own, without README.md"
            )
        _log.warning("reading the default configuration of %s", names)
    return found[0][1] if found else {}


def _files(root: Path, configuration: dict[str, Any]) -> dict[Path, Place]:
    return {
        path: part_in(str(split))
        for split, pattern in _patterns(configuration["data_files"])
        for path in sorted(root.glob(pattern))
    }


def _configurations(root: Path) -> list[dict[str, Any]]:
    """The configurations with files; none if the card has no readable YAML."""
    try:
        text = (root / "README.md").read_text(encoding="utf-8")
        _, front, _ = text.split("---", 2)
        values = yaml.safe_load(front)["configs"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return []
    found = values if isinstance(values, list) else []
    return [one for one in found if isinstance(one, dict) and one.get("data_files")]


def _patterns(files: Any) -> Iterator[tuple[str, str]]:
    """Yields pairs of a split and a pattern of files, in any of the Hub's forms."""
    if isinstance(files, dict):
        files = [{"split": split, "path": path} for split, path in files.items()]
    for one in files if isinstance(files, list) else [files]:
        one = one if isinstance(one, dict) else {"path": one}
        paths = one.get("path") or []
        for path in [paths] if isinstance(paths, str) else paths:
            if isinstance(path, str) and "://" not in path and not path.startswith("/"):
                yield one.get("split", "train"), path
