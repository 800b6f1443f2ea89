import dataclasses

import jax
import librosa
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from audiodd_jax.config import FeaturesConfig
from audiodd_jax.errors import UserError
from audiodd_jax.features import logmel

pytestmark = pytest.mark.optimized


def clip(samples, seed=0):
    """A chirp in noise: energy in every bin."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / 8000
    sweep = scipy.signal.chirp(time, 60, time[-1], 3800, method="logarithmic")
    return (0.3 * sweep + 0.05 * rng.standard_normal(samples)).astype(np.float32)


@pytest.mark.slow  # librosa compiles for a quarter of a minute
@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize(
    "changes",
    [
        {"sample_rate": 8000},
        {"sample_rate": 16000, "n_mels": 64, "f_max": 7000.0},
        {"sample_rate": 22050, "clip_seconds": 2.0, "n_mels": 64, "frames": 128},
        {"sample_rate": 16000, "window_seconds": 0.025, "n_fft": 1024},
    ],
)
def test_agrees_with_librosa(scale, changes):
    config = FeaturesConfig(mel_scale=scale, **changes)
    size = logmel.frontend(config)
    waveforms = np.stack([clip(size.samples, seed) for seed in range(3)])
    ours = np.asarray(jax.jit(lambda x: logmel.mel_power(x, config))(waveforms))
    theirs = librosa.feature.melspectrogram(
        y=waveforms,
        sr=size.sample_rate,
        n_fft=size.n_fft,
        hop_length=size.hop,
        win_length=size.window,
        window="hann",
        n_mels=config.n_mels,
        fmin=config.f_min,
        fmax=size.f_max,
        htk=scale == "htk",
    )[..., : size.frames]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7 * theirs.max())


@settings(max_examples=60, deadline=None)
@given(
    rate=st.sampled_from([8000, 16000, 22050, 44100, 48000]),
    seconds=st.floats(0.1, 10),
    frames=st.integers(8, 400),
)
def test_frame_count_contract(rate, seconds, frames):
    config = FeaturesConfig(sample_rate=rate, clip_seconds=seconds, frames=frames)
    size = logmel.frontend(config)
    assert size.samples == size.hop * frames
    assert size.samples >= seconds * rate - 1e-3
    # The clip grows only by the rounding of the hop.
    assert size.samples < seconds * rate + frames


def test_shape_and_center_of_frames():
    config = FeaturesConfig(sample_rate=8000, n_mels=20, frames=50, f_min=0.0)
    size = logmel.frontend(config)
    click = np.zeros((1, size.samples), np.float32)
    click[0, 10 * size.hop] = 1.0
    power = np.asarray(logmel.mel_power(click, config))
    assert power.shape == (1, 20, 50)
    assert int(power.sum(axis=1).argmax()) == 10


def test_the_level_does_not_matter_under_peak_reference():
    config = FeaturesConfig(sample_rate=8000)
    wave = clip(logmel.frontend(config).samples)[None]
    loud, quiet = (logmel.compute(wave * gain, config) for gain in (1.0, 0.1))
    np.testing.assert_allclose(loud, quiet, atol=1e-3)
    assert float(loud.max()) == pytest.approx(0, abs=1e-5)
    absolute = dataclasses.replace(config, clip_reference="absolute", top_db=100.0)
    loud, quiet = (logmel.compute(wave * gain, absolute) for gain in (1.0, 0.1))
    np.testing.assert_allclose(loud - quiet, np.full(loud.shape, 20), atol=1e-2)


def test_silence_is_the_floor():
    config = FeaturesConfig(sample_rate=8000, top_db=60.0)
    silent = np.zeros((2, logmel.frontend(config).samples), np.float32)
    np.testing.assert_array_equal(logmel.compute(silent, config), -60.0)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_mel_scales_are_inverted_and_agree_with_librosa(scale):
    hertz = np.array([0.0, 100.0, 999.0, 1000.0, 4000.0, 12000.0])
    mel = logmel.hz_to_mel(hertz, scale)
    np.testing.assert_allclose(logmel.mel_to_hz(mel, scale), hertz, atol=1e-6)
    np.testing.assert_allclose(mel, librosa.hz_to_mel(hertz, htk=scale == "htk"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frames": 0}, "must be positive"),
        ({"clip_seconds": 0.0}, "must be positive"),
        ({"f_max": 9000.0}, "mel frequencies must satisfy"),
        ({"n_fft": 64}, "does not fit n_fft"),
        ({"n_mels": 300}, "lie between the bins"),
        ({"mel_scale": "bark"}, "slaney or htk"),
    ],
)
def test_bad_settings_are_named(changes, words):
    config = FeaturesConfig(**{"sample_rate": 16000, **changes})
    with pytest.raises(UserError, match=words):
        logmel.mel_filter_bank(config)


def test_another_length_is_refused():
    config = FeaturesConfig(sample_rate=8000)
    with pytest.raises(ValueError, match="not 8000"):
        logmel.compute(np.zeros((1, 7999), np.float32), config)
