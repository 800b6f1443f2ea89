"""The command ``audiodd export``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audiodd_jax.commands.common import cache_dir, keep_compiled, table
from audiodd_jax.config import Config, presets
from audiodd_jax.flags import parse


def export(argv: Sequence[str]) -> None:
    """Writes a coreset for PyTorch, NumPy, or Hugging Face datasets."""
    found = []

    def base(values: Any, run: str) -> Config:
        from audiodd_jax.coreset.dataset import coreset_config
        from audiodd_jax.coreset.file import load_coreset

        place = Path(run)
        file = place / "coreset.npz" if place.is_dir() else place
        found.extend((file.parent, load_coreset(file)))
        config = coreset_config(found[1], found[0])
        return presets.for_model(config, "convnet")

    values, config, _ = parse.parse("export", argv, base)
    folder, coreset = found
    from audiodd_jax.commands import export as job

    job.check(values.format, values.test_clips)
    out = Path(values.out or folder / "export" / values.format)
    keep_compiled(cache_dir(values))
    job.export(
        *(coreset, values.format, out, config),
        test_clips=values.test_clips,
        cache_dir=cache_dir(values),
    )
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    rows = [
        ("export", str(out)),
        ("format", values.format),
        ("bytes", f"{size:,}"),
        ("card", str(out / "README.md")),
    ]
    if values.format == "pytorch":
        rows.append(("to train", f"python {out / 'train.py'}"))
    table(rows)
