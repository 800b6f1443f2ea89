import numpy as np
import pytest

from audiodd_jax.errors import UserError
from audiodd_jax.features import normalization


def spectrograms(clips=1500, f=3, t=4):
    rng = np.random.default_rng(0)
    scale = np.array([1.0, 5.0, 20.0])[:, None]
    return (scale * rng.standard_normal((clips, f, t)) - 40 + scale).astype(np.float16)


@pytest.mark.parametrize(("kind", "axes"), [("global", (0, 1, 2)), ("per_bin", (0, 2))])
def test_training_clips_become_standard(kind, axes):
    features = spectrograms()
    stats = normalization.fit(normalization.moments(features), kind)
    images = np.asarray(normalization.apply(features, stats))[..., 0]
    np.testing.assert_allclose(images.mean(axes), 0, atol=2e-3)
    np.testing.assert_allclose(images.std(axes), 1, atol=2e-3)
    if kind == "global":
        assert np.ptp(stats.mean) == np.ptp(stats.std) == 0


def test_invert_undoes_apply():
    features = spectrograms(5)
    stats = normalization.fit(normalization.moments(features), "per_bin")
    back = normalization.invert(normalization.apply(features, stats), stats)
    np.testing.assert_allclose(back, features.astype(np.float32), atol=1e-3)


def test_a_bin_that_is_always_silent_stays_finite():
    features = spectrograms(5)
    features[:, 1] = -80
    stats = normalization.fit(normalization.moments(features), "per_bin")
    images = np.asarray(normalization.apply(features, stats))
    assert np.isfinite(images).all()
    assert not images[:, 1].any()


def test_unknown_kind():
    with pytest.raises(UserError, match="global or per_bin"):
        normalization.fit(normalization.moments(spectrograms(5)), "per_clip")


def test_moments_of_parts_combine_to_those_of_the_whole():
    features = spectrograms(50)
    parts = np.concatenate(
        [normalization.moments(features[:20]), normalization.moments(features[20:])],
        axis=1,
    )
    np.testing.assert_array_equal(parts, normalization.moments(features))
    every = features.astype(np.float64)
    stats = normalization.fit(parts, "per_bin")
    np.testing.assert_allclose(stats.mean, every.mean((0, 2)), rtol=1e-6)
    np.testing.assert_allclose(stats.std, every.std((0, 2)), rtol=1e-6)
