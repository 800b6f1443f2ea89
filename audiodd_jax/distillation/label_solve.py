r"""Label solve: the labels that regress all training clips best from given images.

With the matrix A = k_BS (k_SS + lambda tr(k_SS)/s I)^-1, whose row is a clip's
prediction from the coreset, and weights w of the clips with mean 1,

    y_S = argmin  sum_b w_b (y_b - A_b y)^2 + mu b/s (y - y_S0)^2,

where y_S0 are the labels so far. Kernels are averaged over random networks. If many
clips are cut from few recordings, learnt images overfit to the recordings. Labels have
too few values to overfit.

References:
  Nguyen, Chen, Lee, *Dataset Meta-Learning from Kernel Ridge-Regression*, ICLR 2021
  (label solve, without weights and with the pseudo-inverse).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from audiodd_jax.config import CoresetConfig
from audiodd_jax.coreset.arrays import CoresetArrays, repeat_labels
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.features.labels import centred_targets, clip_weights
from audiodd_jax.kernels import ridge
from audiodd_jax.runtime import devices, progress

# Training clips at once.
_CLIPS = 2048


def solve(
    key: Key[Array, ""],
    start: CoresetArrays,
    data: Dataset,
    coreset: CoresetConfig,
    scoring: ridge.Scoring,
    mesh: Mesh,
    *,
    by_recording: bool = False,
) -> CoresetArrays:
    """Returns the coreset with the labels that predict the training clips best.

    ``by_recording`` gives all classes, and all recordings of a class, the same weight;
    data with balanced classes gives it to all clips of a class.
    """
    factor = coreset.factor
    images = start.unpack(factor).images
    s, c = start.labels.shape
    clips, eye = data.train, jnp.eye(s, dtype=images.dtype)
    weights = jnp.ones(len(clips.labels))
    if by_recording or data.is_balanced:
        recordings = clips.recordings if by_recording else None
        weights = clip_weights(clips.labels, c, recordings)
    weights /= weights.mean()

    @functools.partial(jax.jit, out_shardings=devices.replicated(mesh))
    def products(
        key: Key[Array, ""],
        images: Float[Array, "k f t 1"],
        shared: Float[Array, "k s"],
        clips: Float[Array, "b *clip"],
        targets: Float[Array, "b c"],
        weights: Float[Array, " b"],
    ) -> tuple[Float[Array, "s s"], Float[Array, "s c"]]:
        """The sums over clips ``A^T W A`` and ``A^T W Y``."""
        a = ridge.predict_images(key, clips, images, shared, scoring, mesh)
        weighted = a.T * weights
        dot = functools.partial(jnp.dot, precision="highest")
        return dot(weighted, a), dot(weighted, targets)

    fixed = devices.replicate((key, images, repeat_labels(eye, factor)), mesh)
    total, count = (jnp.zeros((s, s)), jnp.zeros((s, c))), len(clips.labels)
    with progress.bar(count, desc="solving labels", unit="clip", leave=False) as bar:
        for first in range(0, count, _CLIPS):
            rows = np.arange(first, min(first + _CLIPS, count))
            targets = centred_targets(clips.labels[rows], c, images.dtype)
            batch = devices.replicate((clips.take(rows), targets, weights[rows]), mesh)
            sums = jax.device_get(products(*fixed, *batch))
            total = jax.tree.map(jnp.add, total, sums)
            bar.update(len(rows))
    prior = coreset.label_prior * count / s
    with jax.default_matmul_precision("highest"):
        labels = jax.scipy.linalg.solve(
            total[0] + prior * eye, total[1] + prior * start.labels, assume_a="pos"
        )
    return start._replace(labels=labels)
