"""MC-dropout over a pool: many random passes of a trained network, a chunk at a time.

A clip's dropout masks belong to a key, the pass and the clip's number: neither the
chunks nor the devices nor the other clips change its predictions. What comes before the
first dropout is the same in every pass, and computed once.

References:
  Gal and Ghahramani, *Dropout as a Bayesian Approximation*, ICML 2016.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.features.dataset import DeviceSplit, HostSplit, Split
from audiodd_jax.networks import models
from audiodd_jax.networks.inference import Network
from audiodd_jax.networks.models import Variables
from audiodd_jax.runtime import devices as devices_lib
from audiodd_jax.runtime.devices import BATCH
from audiodd_jax.runtime.errors import UserError

# A function of some clips: ``(network, images [b f t 1], ids [b], key)`` to an array,
# or a pytree of arrays, with a row a clip.
OfClips = Callable[[Network, Array, Array, Array], Any]


def dropout_passes(
    model: nn.Module,
    network: Network,
    images: Float[Array, "b f t 1"],
    ids: Int[Array, " b"],
    key: Key[Array, ""],
    passes: int,
) -> Float[Array, "p b c"]:
    """Log-probabilities of ``passes`` random passes, one after the other.

    Args:
      model: with dropout.
      network: trained.
      images: clips.
      ids: their numbers, which with the key and the pass decide their masks.
      key: of all passes.
      passes: ``p``.

    Raises:
      UserError: there is no pass, or the network has no dropout.
    """
    if passes < 1:
        raise UserError(f"passes must be at least 1, not {passes}")
    if not model.dropout:
        raise UserError(
            "MC-dropout needs a network with dropout: set --config.model.dropout"
        )
    known = _before_dropout(model, network.variables, images)
    baseline = 0.0
    if network.start is not None:
        baseline = models.logits(model, network.start, images)

    def one(key: Key[Array, ""]) -> Float[Array, "b c"]:
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(ids)
        out = _apply(model, network.variables, images, _Masks(keys, known))
        return jax.nn.log_softmax(out - baseline)

    index = jnp.arange(passes)
    return lax.map(lambda i: one(jax.random.fold_in(key, i)), index)


def embed(
    model: nn.Module, network: Network, images: Float[Array, "b f t 1"]
) -> tuple[Float[Array, "b d"], Float[Array, "b c"]]:
    """What the last layer reads, and the log-probabilities it makes of that.

    Both without dropout.
    """
    features, out = models.embed(model, network.variables, images)
    if network.start is not None:
        out = out - models.logits(model, network.start, images)
    return features, jax.nn.log_softmax(out)


def _drops(context: Any) -> bool:
    """Whether a call is one of a dropout that drops anything."""
    module = context.module
    is_call = isinstance(module, nn.Dropout) and context.method_name == "__call__"
    return is_call and module.rate > 0


class _Masks:
    """Draws each clip's masks from a key of its own, in the place of flax's dropout.

    The first dropout reads ``known``, where that is given: whatever computed its input
    is then unused, and the compiler drops it.
    """

    def __init__(self, keys: Key[Array, " b"], known: Array):
        self._keys = keys
        self._known = known
        self._count = 0

    def __call__(self, call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        layer = context.module
        if not _drops(context):
            return call(*args, **kwargs)
        x = args[0] if self._count else self._known
        shape = [
            1 if axis in layer.broadcast_dims else size
            for axis, size in enumerate(x.shape)
        ][1:]
        index = self._count
        self._count += 1

        def keep(key: Key[Array, ""]) -> Array:
            key = jax.random.fold_in(key, index)
            return jax.random.bernoulli(key, 1.0 - layer.rate, shape)

        return jnp.where(jax.vmap(keep)(self._keys), x / (1.0 - layer.rate), 0.0)


def _before_dropout(
    model: nn.Module, variables: Variables, images: Float[Array, "b f t 1"]
) -> Array:
    """What the first dropout of a network reads."""
    seen = []

    def note(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        if _drops(context):
            seen.append(args[0])
            return args[0]
        return call(*args, **kwargs)

    _apply(model, variables, images, note)
    return seen[0]


def _apply(
    model: nn.Module, variables: Variables, images: Array, interceptor: Callable
) -> Float[Array, "b c"]:
    """Logits with running statistics, every dropout being the interceptor's."""
    collections = {"params": variables.params, "batch_stats": variables.statistics}
    with nn.intercept_methods(interceptor):
        return model.apply(collections, images, train=False, drop=True)


class Pool(NamedTuple):
    """A function that is applied to the clips of a pool.

    Attributes:
      place: puts the pool where the function reads it; once, before all calls.
      over: ``(placed, network, rows, key)`` to the function's values at those rows.
    """

    place: Callable[[Split | DeviceSplit | HostSplit], Any]
    over: Callable[..., Any]


def make_pool(
    function: OfClips,
    chunk: int,
    devices: list[jax.Device] | None = None,
    between: Callable[[], None] = lambda: None,
) -> Pool:
    """Applies a function of clips to a pool, in chunks of one shape, on all devices.

    Clips are numbered by their rows. The last chunk is filled up with clips whose
    values are thrown away.

    Args:
      function: what to compute of each clip.
      chunk: clips at once on a device, which bounds the memory.
      devices: which; None: all, of all processes.
      between: called after each chunk; may raise.
    """
    mesh = devices_lib.make_mesh(devices=devices)
    grid = devices_lib.grid_of(mesh)
    everywhere, divided = PartitionSpec(), PartitionSpec(BATCH)
    together = chunk * mesh.size

    def of_rows(clips: Any, network: Network, rows: Array, ids: Array, key: Array):
        found = function(network, clips.take(rows), ids, key)
        return jax.tree.map(lambda x: grid.gather(x, BATCH, together), found)

    specs = (everywhere, everywhere, divided, divided, everywhere)

    @functools.lru_cache(maxsize=2)
    def compiled(streamed: bool) -> Callable:
        own = (divided, *specs[1:]) if streamed else specs
        mapped = jax.shard_map(
            of_rows, mesh=mesh, in_specs=own, out_specs=everywhere, check_vma=False
        )
        return jax.jit(mapped)

    def place(pool: Split | DeviceSplit | HostSplit) -> Any:
        return (
            pool if isinstance(pool, HostSplit) else devices_lib.replicate(pool, mesh)
        )

    def over(
        pool: Any, network: Network, rows: Int[np.ndarray, " b"], key: Key[Array, ""]
    ) -> Any:
        pending, parts = None, []
        for start in range(0, rows.size, together):
            ids = rows[start : start + together]
            count = ids.size
            ids = np.concatenate([ids, np.full(together - count, ids[0])])
            if isinstance(pool, HostSplit):
                labels = jnp.zeros(together, jnp.int32)
                local = np.tile(np.arange(chunk), mesh.size)
                clips = Split(pool.take(ids), labels)
                found = compiled(True)(clips, network, local, ids, key)
            else:
                found = compiled(False)(pool, network, ids, ids, key)
            found = jax.tree.map(lambda x, n=count: x[:n], found)
            # One chunk is computed while the one before is fetched, never more.
            if pending is not None:
                parts.append(jax.tree.map(np.asarray, pending))
            pending = found
            between()
        parts.append(jax.tree.map(np.asarray, pending))
        return jax.tree.map(lambda *x: jnp.asarray(np.concatenate(x)), *parts)

    return Pool(place, over)
