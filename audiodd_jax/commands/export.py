"""``audiodd export``: writes a coreset as a folder for another library."""

import difflib
from pathlib import Path

import numpy as np

from audiodd_jax.command_line import CommandLine, table
from audiodd_jax.commands.common import keep_compiled
from audiodd_jax.config import Config, DataConfig, fields, presets
from audiodd_jax.config.names import EXPORTS
from audiodd_jax.config.user_paths import local
from audiodd_jax.coreset import audio_folder
from audiodd_jax.coreset.dataset import coreset_config, load_data
from audiodd_jax.coreset.file import Coreset, load_coreset
from audiodd_jax.data import audio, datasets, splits
from audiodd_jax.errors import UserError
from audiodd_jax.features import cache, logmel
from audiodd_jax.report import cards
from audiodd_jax.report.exports import hub, network_folder
from audiodd_jax.report.exports.network_folder import Clips, Recipe
from audiodd_jax.runtime import mirror
from audiodd_jax.runtime.environment import standard_numerics
from audiodd_jax.runtime.files import atomic_folder, write_atomically

# Formats that store plain arrays.
_ARRAYS = ("pytorch", "numpy")


def run(line: CommandLine) -> None:
    """Exports as the command line says, and prints the folder."""
    flags, (path,) = line.flags, map(Path, line.arguments)
    mirror.fetch(path)
    file = path / "coreset.npz" if path.is_dir() else path
    coreset = load_coreset(file)
    base = presets.for_model(coreset_config(coreset, file.parent), "convnet")
    config = line.configure(base)
    out = Path(flags.out or file.parent / "export" / (flags.format or ""))
    keep_compiled(config.data)
    coreset = coreset.first(flags.first) if flags.first else coreset
    export(coreset, flags.format, out, config, test_clips=flags.test_clips)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    rows = [
        ("export", str(out)),
        ("format", flags.format),
        ("bytes", f"{size:,}"),
        ("card", str(out / "README.md")),
    ]
    if flags.format == "pytorch":
        rows.append(("to train", f"python {out / 'train.py'}"))
    table(rows)


@standard_numerics()
def export(
    coreset: Coreset,
    kind: str,
    out: str | Path,
    config: Config | None = None,
    *,
    test_clips: bool = False,
    cache_dir: Path | None = None,
) -> Path:
    """Writes a coreset as a new folder for another library; returns the folder.

    Args:
      kind: ``pytorch``, ``numpy``, ``audiofolder``, ``datasets``, or ``coreset``, a
        file for this library.
      out: must not exist, or be empty.
      config: network, training and data; None: the ConvNet's recipe.
      test_clips: also write the test clips of the coreset's dataset.
      cache_dir: folder for downloads and features; None: ``config.data.cache_dir``.

    Raises:
      UserError: the folder is not empty, the format or a setting is not supported, or
        the test clips are not available.
    """
    if kind not in EXPORTS:
        near = difflib.get_close_matches(kind or "", EXPORTS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"--format must be one of {', '.join(EXPORTS)}{hint}")
    if test_clips and kind not in _ARRAYS:
        formats = " and ".join(_ARRAYS)
        raise UserError(f"--test_clips works only with {formats}, not {kind}")
    config = config or presets.for_model(coreset_config(coreset), "convnet")
    config = fields.with_cache(config, cache_dir)
    fields.validate(config)
    out = local(out)
    mirror.fetch(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} exists already; choose a new folder with --out")
    test = None
    if test_clips:
        # Refuses test clips that were used for training.
        load_data(coreset, config.data, config.features, False)
        test = _test(coreset, config.data)
    if kind != "coreset":
        coreset.check_spectrograms("other libraries")
    recipe = Recipe(config.model, config.training)
    with atomic_folder(out) as folder:
        header = None
        if kind in _ARRAYS:
            is_torch = kind == "pytorch"
            network_folder.write(folder, coreset, recipe, test, torch=is_torch)
        else:
            header = hub.header(coreset, is_parquet=kind == "datasets")
        if kind == "audiofolder":
            audio_folder.write(coreset.sounds(), coreset, folder)
        if kind == "datasets":
            hub.write(folder, coreset, coreset.sounds())
        if kind == "coreset":
            coreset.save(folder / "coreset.npz")
        card = cards.exported(
            header,
            format=kind,
            coreset=coreset,
            learns_views=network_folder.learns_views(coreset, config.training),
            test=0 if test is None else len(test.labels),
            steps=config.training.steps,
        )
        write_atomically(folder / "README.md", card)
    mirror.publish(out)
    return out


def _test(coreset: Coreset, data: DataConfig) -> Clips:
    """Returns the test clips of a coreset's dataset as waveforms."""
    clips = cache.prepare(data, coreset.features)
    given = (clips.labels, clips.splits, clips.folds, clips.groups)
    part = splits.assign(*given, data).test
    recordings = datasets.open_source(data).read()
    # The features leave out recordings that cannot be decoded.
    rows = {name: i for i, name in enumerate(recordings.names)}
    features = coreset.features
    samples = logmel.frontend(features).samples
    waveforms = np.empty((part.size, samples), np.float32)
    for i, clip in enumerate(part):
        waveform, rate = recordings.load(rows[str(clips.names[clip])])
        waveform = audio.resample(waveform, rate, features.sample_rate)
        audio.fit(waveform, samples, features.align, out=waveforms[i])
    return Clips(waveforms, clips.labels[part].astype(np.int64))
