import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from audiodd_jax.config import TrainingConfig
from audiodd_jax.training import losses

LABELS = jnp.array([2, 0], jnp.int32)
SOFT = jnp.array([[0.9, -0.4, -0.5], [-0.2, 0.5, -0.3]])


def test_hard_targets():
    smooth = TrainingConfig(label_smoothing=0.3)
    np.testing.assert_allclose(
        losses.hard_targets(LABELS, 3, smooth),
        [[0.1, 0.1, 0.8], [0.8, 0.1, 0.1]],
        atol=1e-6,
    )
    squared = TrainingConfig(loss="mse", label_scale=3.0)
    np.testing.assert_allclose(
        losses.hard_targets(LABELS, 3, squared), [[-1, -1, 2], [2, -1, -1]], atol=1e-6
    )


def test_soft_targets():
    squared = TrainingConfig(loss="mse", label_scale=2.0)
    np.testing.assert_allclose(losses.soft_targets(SOFT, squared), 2 * SOFT)
    entropy = TrainingConfig(label_scale=4.0)
    want = jax.nn.softmax(4 * SOFT)
    np.testing.assert_allclose(losses.soft_targets(SOFT, entropy), want, atol=1e-6)


def test_hard_labels_of_a_coreset_are_its_largest_outputs():
    config = TrainingConfig(labels="hard", label_smoothing=0.0)
    want = [[1, 0, 0], [0, 1, 0]]
    np.testing.assert_allclose(losses.soft_targets(SOFT, config), want)


def test_losses_by_hand():
    logits = jnp.array([[1.0, 0.0, -1.0]])
    target = jnp.array([[0.5, 0.5, 0.0]])
    squared = 0.5 * (0.25 + 0.25 + 1.0)
    np.testing.assert_allclose(
        losses.per_clip(logits, target, "mse"), squared, rtol=1e-6
    )
    total = np.log(np.exp(1) + 1 + np.exp(-1))
    np.testing.assert_allclose(
        losses.per_clip(logits, target, "cross_entropy"), total - 0.5, rtol=1e-6
    )
    hard = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.array([0]))
    one_hot = jnp.array([[1.0, 0, 0]])
    np.testing.assert_allclose(
        losses.per_clip(logits, one_hot, "cross_entropy"), hard[0], rtol=1e-6
    )


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_mixup_keeps_images_and_targets_together(alpha):
    targets = jax.nn.softmax(jax.random.normal(jax.random.key(0), (6, 3)))
    # Images that hold their targets: both must be mixed in the same proportions.
    images = jnp.broadcast_to(targets[:, :, None, None], (6, 3, 2, 1))
    mixed, mixed_targets = losses.mixup(jax.random.key(1), images, targets, alpha)
    np.testing.assert_allclose(mixed[:, :, 0, 0], mixed_targets, atol=1e-6)
    np.testing.assert_allclose(mixed_targets.sum(1), 1, atol=1e-6)
    assert np.abs(mixed_targets - targets).max() > 1e-3
