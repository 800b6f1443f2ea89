"""Scores on the test split over seeds, of networks and of kernel regression."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from audiodd_jax.coreset import selection
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.labels import tag_threshold
from audiodd_jax.kernels import exact_matrix, infinite_width, ridge
from audiodd_jax.kernels.ridge import Scoring
from audiodd_jax.networks.models import Network, network_logits
from audiodd_jax.runtime import devices, progress
from audiodd_jax.runtime.memory import memory_of, memory_share
from audiodd_jax.training import scores
from audiodd_jax.training.fit import Fitted
from audiodd_jax.training.scores import Evaluation

_log = logging.getLogger(__name__)

_SCORING = "scoring on the test split"
_NEIGHBOURS = 5


def kernel_regression(
    coresets: list[CoresetArrays],
    test: Clips,
    scoring: Scoring,
    seeds: Sequence[int],
    mesh: Mesh | None = None,
    shown: str = _SCORING,
) -> list[Evaluation]:
    """Kernel ridge regression with fresh random networks (``--protocol=krr``).

    All coresets are scored with the same networks, and coresets of one shape by one
    compiled program. Progress is ``shown`` seed by seed.

    Raises:
      UserError: the kernels do not fit the memory.
    """
    mesh = mesh or devices.make_mesh(scoring.num_networks)
    device = jax.local_devices()[0]
    s, b = max(len(c.labels) for c in coresets), len(test.labels)
    # The sum, a network's term, the scaled kernel and its Cholesky factor.
    needed = 4 * s * (4 * s + 2 * b)
    available = memory_of(device) * memory_share(device.platform)
    if needed > available:
        raise UserError(
            f"kernel regression on {s:,} spectrograms takes {needed / 1e9:.0f} GB, but "
            f"{available / 1e9:.0f} GB are available; use fewer, such as --against=10%"
        )
    predict = regression_program(scoring, mesh)
    test, *coresets = devices.replicate([test, *coresets], mesh)
    evaluations, count = [], len(coresets) * len(seeds)
    with progress.bar(count, desc=shown, unit="seed", leave=False) as bar:
        for coreset in coresets:
            c, answers = coreset.labels.shape[1], []
            for seed in seeds:
                answers.append(np.asarray(predict(np.int32(seed), coreset, test)))
                bar.update()
            answers = np.stack(answers)
            evaluations.append(
                scores.evaluate("krr", answers, test.labels, c, tag_threshold(c))
            )
    return evaluations


def regression_program(scoring: Scoring, mesh: Mesh) -> jax.stages.Wrapped:
    """The program of ``kernel_regression``: ``(seed, coreset, test)`` to answers."""

    def predict(seed: jax.Array, coreset: CoresetArrays, test: Clips) -> jax.Array:
        predictions = ridge.predict_images(
            ridge.evaluation_key(seed),
            test.images,
            coreset.images,
            coreset.labels,
            scoring,
            mesh,
        )
        return _answers(predictions, tags.are_tags(test.labels))

    return jax.jit(predict, out_shardings=devices.replicated(mesh))


def nearest_neighbours(support: CoresetArrays, test: Clips) -> Evaluation:
    """Votes of the nearest embeddings by cosine (``--protocol=knn``).

    Labels are weighted by the cosine. There are up to five neighbours, but no more than
    a class has in the support set on average. Nothing is random: there is one score.
    """
    s, c = support.labels.shape
    count = max(1, min(_NEIGHBOURS, s // c))

    @jax.jit
    def predict(support: CoresetArrays, images: Array) -> Array:
        flat = lambda x: selection.unit_length(x.reshape(len(x), -1))
        cosines = jnp.dot(flat(images), flat(support.images).T, precision="highest")
        nearest, rows = jax.lax.top_k(cosines, count)
        weights = jnp.maximum(nearest, 0) / count
        outputs = jnp.einsum("bk,bkc->bc", weights, support.labels[rows])
        return _answers(outputs, tags.are_tags(test.labels))

    answers = np.asarray(predict(support, test.images))[None]
    return scores.evaluate("knn", answers, test.labels, c, tag_threshold(c))


def _answers(outputs: Float[Array, "b c"], has_tags: bool) -> Array:
    """Argmax ``[b]`` for classes; raw outputs ``[b, c]`` for tags."""
    return outputs if has_tags else outputs.argmax(1)


def exact_regression(
    support: CoresetArrays,
    test: Clips,
    kind: str,
    scoring: Scoring,
    folder: Path | None = None,
) -> Evaluation:
    """Kernel ridge regression with an exact kernel (``--protocol=nngp`` or ``ntk``).

    Nothing is random: there is one score. Of ``scoring``, the width, number and
    precision of the networks and the chunk have no effect. Finished tiles are saved in
    ``folder`` (None: memory only), from which an interrupted call resumes.

    Raises:
      UserError: neural-tangents is not installed, or one pair exceeds the memory.
      Interrupted: on SIGTERM or SIGINT; finished tiles are saved.
    """
    network, shape = scoring.network, test.images.shape[1:3]
    infinite_width.make_kernel(network, kind)  # raises before the log line
    at_once = infinite_width.pairs_at_once(shape, is_differentiated=False)
    s, b = support.labels.shape[0], test.labels.shape[0]
    pairs = exact_matrix.count_pairs(s) + exact_matrix.count_pairs(b, s)
    _log.info(
        "%s: %s pairs of spectrograms, at most %s at once on a device",
        *(kind, f"{pairs:,}", f"{at_once:,}"),
    )
    kernel = lambda *images: exact_matrix.matrix(
        network, kind, *images, folder=folder, pairs=at_once
    )
    k_ss = kernel(support.images)
    k_bs = kernel(test.images, support.images)
    predictions = ridge.predict(
        *(jnp.asarray(x) for x in (k_bs, k_ss, support.labels)),
        scoring.regularizer,
    )
    answers = np.asarray(_answers(predictions, tags.are_tags(test.labels)))[None]
    c = support.labels.shape[1]
    return scores.evaluate(kind, answers, test.labels, c, tag_threshold(c))


def networks(
    fitted: Fitted, test: Clips, protocol: str, num_classes: int
) -> Evaluation:
    """Scores trained networks on the test clips; ``protocol`` names their model."""
    predict = prediction_program(fitted.model, tags.are_tags(test.labels))
    images, count, answers = test.images, len(fitted.best_steps), []
    with progress.bar(count, desc=_SCORING, unit="network", leave=False) as bar:
        for i in range(count):
            one = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], fitted.networks)
            answers.append(np.asarray(predict(one, images)))
            bar.update()
    answers = np.concatenate(answers)
    # A logit above 0 is a probability above one half.
    return scores.evaluate(protocol, answers, test.labels, num_classes, threshold=0.0)


@functools.lru_cache(maxsize=4)
def prediction_program(model: nn.Module, has_tags: bool = False) -> jax.stages.Wrapped:
    """The program of ``networks``: ``(networks, images)`` to answers."""

    @jax.jit
    def predict(networks: Network, images: Array) -> Array:
        out = lambda network: network_logits(network, images, model)
        return jax.lax.map(lambda network: _answers(out(network), has_tags), networks)

    return predict
