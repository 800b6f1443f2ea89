"""Measures the inversion of log-mel spectrograms, and Griffin-Lim alone.

    python experiments/inversion_table.py --dataset=spoken_digit --data_dir=/data/fsdd

A network trained on all training clips is scored on the test clips, before and after
log-mel, inversion and log-mel again. Then our Griffin-Lim and librosa's (extra
``test``) start from the true magnitudes of recordings, and are compared by spectral
convergence after the same number of iterations.
"""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

import audiodd_jax
from audiodd_jax.commands import common
from audiodd_jax.commands.main import explained
from audiodd_jax.config import presets
from audiodd_jax.coreset import subsets
from audiodd_jax.data import audio
from audiodd_jax.features import inversion, logmel, normalization
from audiodd_jax.report.tables import mean_std, spread
from audiodd_jax.training import evaluation
from audiodd_jax.training import source as source_lib

_DATASET = flags.DEFINE_string("dataset", "spoken_digit", "dataset of WAV files")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder with the recordings")
_MODEL = flags.DEFINE_enum("model", "convnet", ["convnet", "resnet18"], "network")
_STEPS = flags.DEFINE_integer("steps", 150, "training steps of the network")
_SEEDS = flags.DEFINE_integer(
    "seeds", 3, "seeds of the network, and of the initial phases"
)
_CLIPS = flags.DEFINE_integer("clips", 40, "recordings for Griffin-Lim")
_ITERATIONS = flags.DEFINE_integer("iterations", 32, "iterations of Griffin-Lim alone")


def print_accuracies(config, data):
    """Prints the network's accuracy on the clips before and after inversion."""
    log_mel = normalization.invert(data.test.images, data.normalization)
    began = time.perf_counter()
    inverted = inversion.invert(log_mel, data.features, key=jax.random.key(0))
    jax.block_until_ready(inverted.waveforms)
    seconds = time.perf_counter() - began
    again = logmel.compute(inverted.waveforms, data.features)
    after = data.test._replace(features=normalization.apply(again, data.normalization))
    model = presets.for_model(
        config, _MODEL.value, training__steps=_STEPS.value, training__seeds=1
    )
    scores = []
    for seed in range(_SEEDS.value):
        source = source_lib.subset_source(subsets.Subset(), None, data, seed)
        fitted = source_lib.fit_source(
            model.model, model.training, seed, data, source, None
        )
        score = lambda split, net=fitted: (
            evaluation.networks(net, split, _MODEL.value, data.num_classes).mean
        )
        scores.append((score(data.test), score(after)))
    print("| accuracy before (%) | after (%) | spectral convergence | s |")
    print("|---|---|---|---|")
    before, later = (mean_std(c) for c in zip(*scores, strict=True))
    convergence = float(np.mean(inverted.convergence))
    print(f"| {before} | {later} | {convergence:.3f} | {seconds:.0f} |", flush=True)


def print_convergence(config):
    """Compares our Griffin-Lim with librosa's on true magnitudes of recordings."""
    import librosa

    size = inversion.synthesis(config)
    files = sorted(Path(_DATA_DIR.value).rglob("*.wav"))
    rows = np.linspace(0, len(files) - 1, _CLIPS.value).astype(int)

    def read(row):
        waveform = audio.resample(*audio.decode(files[row]), size.sample_rate)
        return audio.fit(waveform, size.samples, config.align)

    target = jnp.abs(logmel.stft(jnp.stack([read(row) for row in rows]), size))

    def ours(seed):
        key, count = jax.random.key(seed), _ITERATIONS.value
        return inversion.griffin_lim(target, size, key=key, iterations=count)

    def theirs(seed):
        return librosa.griffinlim(
            np.asarray(target).swapaxes(1, 2),
            n_iter=_ITERATIONS.value,
            hop_length=size.hop,
            win_length=size.window,
            n_fft=size.n_fft,
            length=size.samples,
            random_state=seed,
        )

    print("\n| Griffin-Lim | spectral convergence |")
    print("|---|---|")
    for name, method in {"ours": ours, "librosa": theirs}.items():
        errors = []
        for seed in range(_SEEDS.value):
            waveforms = jnp.asarray(method(seed))
            convergence = inversion.spectral_convergence(waveforms, target, size)
            errors.append(float(jnp.mean(convergence)))
        print(f"| {name} | {spread(errors)} |")


def main(_):
    logging.set_verbosity(logging.WARNING)
    common.keep_compiled(None)
    config = audiodd_jax.for_dataset(_DATASET.value, data__data_dir=_DATA_DIR.value)
    data = audiodd_jax.prepare(config)
    print_accuracies(config, data)
    print_convergence(data.features)


if __name__ == "__main__":
    explained(lambda: app.run(main))
