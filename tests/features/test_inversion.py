"""Inversion of log-mel spectrograms: STFT pairs, least squares, Griffin-Lim."""

import dataclasses

import checks
import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import scipy.optimize
import soundfile

from audiodd_jax.config import FeaturesConfig, presets
from audiodd_jax.coreset.subsets import Subset
from audiodd_jax.features import inversion, logmel, normalization
from audiodd_jax.training import evaluation
from audiodd_jax.training.source import fit_source, subset_source

SMALL = FeaturesConfig(
    sample_rate=8_000,
    clip_seconds=0.5,
    frames=32,
    n_mels=32,
    window_seconds=0.032,
    top_db=60.0,
)


def tone(hz, config=SMALL):
    size = logmel.frontend(config)
    time = np.arange(size.samples) / size.sample_rate
    return np.sin(2 * np.pi * hz * time).astype(np.float32)[None]


@pytest.mark.parametrize(
    ("window", "samples", "padding"),
    # Even, odd, longer than the clip, and barely a window.
    [(256, 4_000, 0), (97, 1_000, 6), (700, 300, 1), (2, 50, 0), (5, 1, 3)],
)
def test_inverse_stft_is_the_inverse(window, samples, padding):
    config = dataclasses.replace(
        SMALL,
        clip_seconds=samples / 8_000,
        frames=1,
        n_mels=1,
        window_seconds=window / 8_000,
        n_fft=window + padding,
    )
    size = inversion.synthesis(config)
    x = np.random.default_rng(0).standard_normal((2, size.samples))
    x = x.astype(np.float32)
    again = inversion.inverse_stft(logmel.stft(jnp.asarray(x), size), size)
    np.testing.assert_allclose(again, x, atol=1e-4)


@pytest.mark.slow
def test_stft_matches_librosa():
    size = inversion.synthesis(SMALL)
    x = np.random.default_rng(0).standard_normal(size.samples).astype(np.float32)
    theirs = librosa.stft(
        x, n_fft=size.n_fft, hop_length=size.hop, win_length=size.window
    )
    ours = logmel.stft(jnp.asarray(x[None]), size)[0].T
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    back = librosa.istft(
        theirs,
        n_fft=size.n_fft,
        hop_length=size.hop,
        win_length=size.window,
        length=size.samples,
    )
    ours = inversion.inverse_stft(jnp.asarray(theirs.T[None]), size)[0]
    np.testing.assert_allclose(ours, back, atol=1e-4)


def test_linear_power_solves_the_least_squares_of_scipy():
    filters = logmel.mel_filter_bank(SMALL).astype(np.float64)
    rng = np.random.default_rng(0)
    # Spectrograms of sounds, and others: coresets have both.
    heard = filters @ rng.gamma(0.5, size=(filters.shape[1], 8))
    unheard = 1e-2 * 10 ** rng.uniform(-3, 0, (filters.shape[0], 8))
    y = np.concatenate([heard, unheard], 1)
    ours = np.asarray(inversion.linear_power(jnp.asarray(y[None], jnp.float32), SMALL))
    assert (ours >= 0).all()
    for column in range(y.shape[1]):
        _, best = scipy.optimize.nnls(filters, y[:, column], maxiter=2_000)
        error = np.linalg.norm(filters @ ours[0, :, column] - y[:, column])
        assert error <= 1.05 * best + 2e-2 * np.linalg.norm(y[:, column])


def test_a_tone_keeps_its_pitch_and_silence_stays_silent():
    waveforms = np.concatenate([tone(1_000), 0 * tone(1_000)])
    log_mel = logmel.log_mel(waveforms, SMALL)
    found = inversion.invert(log_mel, SMALL, key=jax.random.key(0))
    spectrum = np.abs(np.fft.rfft(np.asarray(found.waveforms[0])))
    hz = np.fft.rfftfreq(found.waveforms.shape[1], 1 / 8_000)[spectrum.argmax()]
    # Within the mel bin of the tone.
    assert hz == pytest.approx(1_000, abs=75)
    assert np.abs(found.waveforms[0]).max() == pytest.approx(0.9, abs=1e-5)
    assert not np.any(found.waveforms[1])
    assert np.isfinite(found.convergence).all()


# With equal momentum it is the same algorithm from other random phases.
@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize(
    ("options", "momentum", "most"), [({"momentum": 0.0}, 0.0, 1.04), ({}, 0.99, 1.0)]
)
def test_griffin_lim_is_as_good_as_that_of_librosa(real_audio, options, momentum, most):
    files = sorted(real_audio("fsdd").rglob("*.wav"))[::60][:40]
    config = dataclasses.replace(SMALL, clip_seconds=0.6)
    size = inversion.synthesis(config)
    clips = np.zeros((len(files), size.samples), np.float32)
    for row, file in zip(clips, files, strict=True):
        x = soundfile.read(file, dtype="float32")[0][: size.samples]
        row[: x.size] = x
    target = jnp.abs(logmel.stft(jnp.asarray(clips), size))
    ours, theirs = [], []
    for seed in range(3):
        ours.append(
            inversion.griffin_lim(
                target, size, key=jax.random.key(seed), iterations=32, **options
            )
        )
        theirs.append(
            librosa.griffinlim(
                np.asarray(target).swapaxes(1, 2),
                n_iter=32,
                hop_length=size.hop,
                win_length=size.window,
                n_fft=size.n_fft,
                momentum=momentum,
                length=size.samples,
                random_state=seed,
            )
        )
    one = lambda x: inversion.spectral_convergence(jnp.asarray(x), target, size)
    error = lambda found: np.mean([one(x) for x in found])
    assert error(ours) <= most * error(theirs)


@pytest.mark.slow
@pytest.mark.optimized
def test_digits_are_recognised_after_a_round_trip(real_audio):
    config = presets.for_dataset("spoken_digit", data__data_dir=str(real_audio("fsdd")))
    model = presets.for_model(config, "convnet", training__steps=150, training__seeds=1)
    data = checks.load(config)
    subset = Subset("all")
    source = subset_source(subset, np.arange(0), data, 0)
    fitted = fit_source(model.model, model.training, 0, data, source, None)
    log_mel = normalization.invert(data.test.images, data.normalization)
    found = inversion.invert(log_mel, data.features, key=jax.random.key(0))
    again = logmel.compute(found.waveforms, data.features)
    images = normalization.apply(again, data.normalization)
    score = lambda split: evaluation.networks(fitted, split, "convnet", 10).mean
    original = score(data.test)
    assert original > 0.9
    assert score(data.test._replace(features=images)) >= 0.9 * original


def test_a_round_trip_keeps_the_log_mel(real_audio):
    file = sorted(real_audio("fsdd").rglob("3_jackson_0.wav"))[0]
    x = soundfile.read(file, dtype="float32")[0]
    size = logmel.frontend(SMALL)
    waveforms = np.pad(x, (0, size.samples))[None, : size.samples]
    log_mel = np.asarray(logmel.log_mel(waveforms, SMALL))
    found = inversion.invert(log_mel, SMALL, key=jax.random.key(1))
    again = np.asarray(logmel.log_mel(np.asarray(found.waveforms), SMALL))
    loud = log_mel > -40
    assert np.abs(again - log_mel)[loud].mean() < 4.0
