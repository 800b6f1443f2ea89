import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.features.labels import centred_targets
from audiodd_jax.kernels import ridge


def problem(s, seed=0):
    rng = np.random.default_rng(seed)
    phi = rng.standard_normal((s, s + 3))
    return phi @ phi.T / s, rng.standard_normal((s, 4))


def test_regularizer_is_relative_to_the_mean_diagonal():
    k = jnp.diag(jnp.array([1.0, 3.0]))
    found = ridge.predict(jnp.eye(2), k, jnp.eye(2), 0.5)
    np.testing.assert_allclose(found, np.diag([1 / 2, 1 / 4]), rtol=1e-6)


def test_prediction_agrees_with_a_plain_solve(x64):
    k, y = problem(6)
    k_bs = np.random.default_rng(1).standard_normal((3, 6))
    expected = k_bs @ np.linalg.solve(k + 0.01 * np.trace(k) / 6 * np.eye(6), y)
    ours = ridge.predict(jnp.array(k_bs), jnp.array(k), jnp.array(y), 0.01)
    np.testing.assert_allclose(ours, expected, rtol=1e-10)


def test_gradient(x64):
    k, y = problem(5)
    half = lambda k: jnp.asarray((k + k.T) / 2)
    predict = lambda k, y: ridge.predict(jnp.eye(5), half(k), jnp.asarray(y), 0.05)
    f = lambda k, y: (predict(k, y) ** 2).sum()
    check_grads(
        f, (jnp.array(k), jnp.array(y)), order=1, modes=["rev"], eps=1e-6, rtol=1e-5
    )


@settings(max_examples=20, deadline=None)
@given(s=st.integers(2, 8), seed=st.integers(0, 1000))
def test_predictions_are_invariant_to_the_order_of_the_coreset(float64, s, seed):
    k, y = problem(s, seed)
    rng = np.random.default_rng(seed)
    k_bs, order = rng.standard_normal((3, s)), rng.permutation(s)
    with float64(True):
        a = ridge.predict(jnp.array(k_bs), jnp.array(k), jnp.array(y), 0.1)
        b = ridge.predict(
            jnp.array(k_bs[:, order]),
            jnp.array(k[np.ix_(order, order)]),
            jnp.array(y[order]),
            0.1,
        )
    np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


def test_centred_targets():
    np.testing.assert_allclose(
        centred_targets(jnp.array([2]), 4), [[-0.25, -0.25, 0.75, -0.25]]
    )


def test_score_by_hand():
    predictions = jnp.array([[0.5, -0.5], [0.5, -0.5]])
    score = ridge.score(predictions, jnp.array([0, 1]))
    assert float(score.accuracy) == 0.5
    assert float(score.loss) == pytest.approx(0.25)  # half the mean of 0, 0, 1, 1


def test_a_coreset_predicts_itself():
    x = jax.random.normal(jax.random.key(0), (6, 8, 8, 1))
    y = centred_targets(jnp.arange(6), 6)
    predictions = ridge.predict_images(
        jax.random.key(1),
        x,
        x,
        y,
        ridge.Scoring(
            RandomNetworkConfig(depth=2, width=16),
            num_networks=4,
            chunk=4,
            regularizer=1e-4,
        ),
    )
    np.testing.assert_array_equal(predictions.argmax(1), np.arange(6))
