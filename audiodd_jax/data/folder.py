"""Any labelled folder of sounds: ``class_name/*.wav``, or a CSV of path and label."""

from pathlib import Path

import numpy as np

from audiodd_jax.config import DataConfig
from audiodd_jax.data import audio, csv_tables, datasets
from audiodd_jax.data.recordings import (
    TEST,
    TRAIN,
    VALIDATION,
    Decoded,
    Recordings,
    Source,
    fingerprint_files,
)
from audiodd_jax.runtime.errors import UserError

_SPLIT_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "validation": VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
    "eval": TEST,
}


def open_source(config: DataConfig, cache_dir: Path) -> Source:
    """Finds the recordings of ``config.data_dir``, a folder or a CSV.

    Raises:
      UserError: nothing there, or a table that cannot be understood.
    """
    place = Path(config.data_dir).expanduser()
    if place.is_dir():
        rows = _rows_of_tree(place)
        files = [row["path"] for row in rows]
        root = place
    elif place.is_file():
        rows = _rows_of_table(place)
        files = [row["path"] for row in rows if row["path"].is_file()]
        # Relative to /, since a table may name files anywhere.
        files, root = [f.resolve() for f in {*files, place}], Path("/")
    else:
        raise UserError(
            f"--data_dir={config.data_dir} is neither a folder nor a CSV; give a "
            "folder of class_name/*.wav, or a CSV with the columns path and label"
        )
    num_classes = len({row["label"] for row in rows})
    if num_classes < 2:
        raise UserError(
            f"{place} holds {num_classes} classes of sounds; at least "
            "two are needed, as folders class_name/*.wav or labels of a CSV"
        )
    entry = datasets.lookup("folder")
    fingerprint = fingerprint_files(files, root)
    return Source(
        "folder", entry.version, entry.licence, fingerprint, lambda: _index(rows, place)
    )


def _rows_of_tree(root: Path) -> list[dict]:
    """``[split/]class/**/file``: a row a recording, in a fixed order."""
    folders = sorted(p for p in root.iterdir() if _is_visible_folder(p))
    splits = {p: _SPLIT_NAMES.get(p.name.lower()) for p in folders}
    # train/ and test/ folders hold classes only if every folder is named so.
    if folders and all(splits.values()) and TEST in splits.values():
        classes = [
            (splits[folder], child)
            for folder in folders
            for child in sorted(folder.iterdir())
            if _is_visible_folder(child)
        ]
    else:
        classes = [("", folder) for folder in folders]
    rows = []
    for split, folder in classes:
        files = [
            file
            for file in sorted(folder.rglob("*"))
            if file.suffix.lower() in audio.SUFFIXES and not file.name.startswith(".")
        ]
        if not files:
            raise UserError(
                f"the class folder {folder} holds no sound file "
                f"({', '.join(s[1:] for s in audio.SUFFIXES)})"
            )
        rows += [
            {"path": f, "label": folder.name, "split": split, "fold": 0, "group": ""}
            for f in files
        ]
    return rows


def _is_visible_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _rows_of_table(table: Path) -> list[dict]:
    """A CSV with ``path,label`` and optionally ``split``, ``fold`` and ``group``."""
    rows = []
    for line, record in enumerate(csv_tables.read(table, ("path", "label")), start=2):
        split = (record.get("split") or "").strip().lower()
        if split and split not in _SPLIT_NAMES:
            raise UserError(
                f"{table}, line {line}: the split is train, validation or test, "
                f"not {split}"
            )
        rows.append(
            {
                # Relative paths are relative to the table; absolute ones stay.
                "path": table.parent / record["path"].strip(),
                "label": record["label"].strip(),
                "split": _SPLIT_NAMES.get(split, ""),
                "fold": csv_tables.fold_number(record.get("fold") or "", table, line),
                "group": (record.get("group") or "").strip(),
            }
        )
    with_fold = sum(row["fold"] > 0 for row in rows)
    if 0 < with_fold < len(rows):
        raise UserError(f"{table}: {len(rows) - with_fold} rows lack their fold")
    return rows


def _index(rows: list[dict], place: Path) -> Recordings:
    class_names = tuple(sorted({row["label"] for row in rows}))
    base = place if place.is_dir() else place.parent
    paths = [row["path"] for row in rows]
    column = lambda name, dtype: np.array([row[name] for row in rows], dtype)
    return Recordings(
        class_names=class_names,
        names=tuple(
            str(path.relative_to(base) if path.is_relative_to(base) else path)
            for path in paths
        ),
        labels=np.searchsorted(class_names, column("label", str)).astype(np.int32),
        splits=column("split", str),
        folds=column("fold", np.int32),
        groups=column("group", str),
        load=_Decoder(paths),
        measure=lambda: audio.headers(paths),
    )


class _Decoder:
    """index -> decoded recording; a class, so that it can be pickled."""

    def __init__(self, paths: list[Path]):
        self._paths = paths

    def __call__(self, index: int) -> Decoded:
        return audio.decode(self._paths[index])
