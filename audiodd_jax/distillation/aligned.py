r"""RFAD from what networks learn from: views of the coreset, labelled by a teacher.

Networks that learn from a coreset see neither its spectrograms nor its labels, but
random views of the spectrograms, and the probabilities T that a teacher gives them
(``coreset.views``). So these are the support set of the loss, too. Each step, with a
batch B of real clips and the coreset's spectrograms x_S,

1. draws m views of every spectrogram, augmented and mixed like those that are stored,
       V = view(x_S),   m s spectrograms
   (the pieces of a packed image share its m views, as do smaller images that would fill
   one together, and each has at least one);
2. labels them by the teacher, at the temperature of the stored labels,
       y_V = T(V) - 1/c;
3. predicts the batch from them under fresh random networks, with RFAD's kernels,
       y_hat_B = k_BV (k_VV + lambda tr(k_VV)/(m s) I)^-1 y_V,
   and computes RFAD's loss;
4. updates x_S by its gradient, with AdaBelief. It reaches x_S through the views in two
   ways, by the kernels and by the teacher's labels,
       dL/dx_S = (dV/dx_S)^T [(dk/dV)^T dL/dk + (dT/dV)^T dL/dy_V].

The coreset's own labels y_S stay as they are, and kernel regression on them says little
about views, so the last coreset is kept (``config.presets``). The teacher's networks
are constant. As part of the state they are arguments of the compiled step, and a
resumed run continues with the same ones.

Devices share the kernels as in ``rfad``, and the rows of views that the teacher labels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import RFADConfig, ViewsConfig
from audiodd_jax.config.packing import Factor, Packing
from audiodd_jax.coreset import views as views_lib
from audiodd_jax.coreset.arrays import CoresetArrays, rounded
from audiodd_jax.distillation import kernel_methods
from audiodd_jax.distillation.kernel_methods import Learner, Params, Rates
from audiodd_jax.distillation.method import Context, Method
from audiodd_jax.features.clips import Clips
from audiodd_jax.networks.models import Ensemble, Network
from audiodd_jax.runtime import devices
from audiodd_jax.runtime.memory import in_chunks

# ``(key, images, networks, count)`` to ``count`` labelled views of every image.
MakeViews = Callable[
    [Key[Array, ""], Float[Array, "s f t 1"], Network, int],
    tuple[Float[Array, "k f t 1"], Float[Array, "k c"]],
]
# ``(support set, key, batch)`` to the loss of the batch and its predictions.
LossFrom = Callable[
    [CoresetArrays, Key[Array, ""], Clips],
    tuple[Float[Array, ""], Float[Array, "b c"]],
]


class State(NamedTuple):
    """State between steps: the learnt parameters, and the teacher's networks."""

    learnt: kernel_methods.State
    teacher: Network

    @property
    def step(self) -> Int[Array, ""]:
        """Number of steps taken."""
        return self.learnt.step


def make_views(config: ViewsConfig, context: Context) -> MakeViews:
    """Steps 1 and 2: views of every spectrogram, and their labels, centred.

    The teacher labels as many views at once as the memory plan says, and its
    activations are recomputed in the backward pass.
    """

    def label(images: Array, networks: Network) -> Array:
        part = jax.checkpoint(lambda rows: context.teacher.predict(networks, rows))
        return in_chunks(part, images, context.plan.coreset_chunk)

    label = devices.shard_rows(label, context.mesh)

    def views(
        key: Key[Array, ""], images: Array, networks: Network, count: int
    ) -> tuple[Array, Array]:
        draw = lambda key: views_lib.view(key, images, config, context.normalization)
        drawn = jax.vmap(draw)(jax.random.split(key, count))
        # With kernels in float64, random numbers are in float64, too.
        drawn = drawn.reshape(-1, *images.shape[1:]).astype(images.dtype)
        labels = label(drawn, networks)
        return drawn, labels - 1.0 / labels.shape[1]

    return views


def loss(
    params: Params,
    key: Key[Array, ""],
    batch: Clips,
    networks: Network,
    make_views: MakeViews,
    settings: RFADConfig,
    loss_from: LossFrom,
    factor: Factor = 1,
    storage: str = "float32",
) -> tuple[Float[Array, ""], Float[Array, "b c"]]:
    """Steps 1 to 3: the loss of a batch, and its predictions ``[b, c]``.

    ``key`` draws views and random networks, and ``networks`` are the teacher's;
    ``factor`` packs spectrograms in images, and ``storage`` may round these.
    """
    view_key, network_key = jax.random.split(key)
    coreset = kernel_methods.stored(params)
    images = rounded(coreset.images, storage)
    coreset = coreset._replace(images=images).unpack(factor)
    count = settings.views_of_each(Packing.parse(factor).pieces)
    images, labels = make_views(view_key, coreset.images, networks, count)
    support = coreset._replace(images=images, labels=labels)
    return loss_from(support, network_key, batch)


def learn(
    learner: Learner,
    make_views: MakeViews,
    settings: RFADConfig,
    loss_from: LossFrom,
    teacher: Ensemble,
    factor: Factor,
    storage: str,
) -> Method:
    """Step 4: the method as ``init``, ``step`` and ``coreset``."""

    def init(key: Key[Array, ""], start: CoresetArrays) -> State:
        # The state is donated: nothing else may share its buffers.
        networks = jax.tree.map(jnp.copy, teacher.networks)
        return State(learner.init(key, start), networks)

    def step(
        state: State, batch: Clips, rates: Rates = learner.rates
    ) -> tuple[State, dict[str, Array]]:
        learnt, networks = state
        key = jax.random.fold_in(learnt.key, learnt.step)

        def batch_loss(params: Params) -> tuple[Array, Array]:
            given = (make_views, settings, loss_from, factor, storage)
            return loss(params, key, batch, networks, *given)

        learnt, metrics = learner.update(learnt, batch_loss, batch.labels, rates)
        return State(learnt, networks), metrics

    def coreset(state: State) -> CoresetArrays:
        return kernel_methods.stored(state.learnt.params)

    return Method(init, step, coreset, rates=learner.rates)
