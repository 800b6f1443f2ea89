"""MC-dropout over a pool: stochastic forward passes of a trained network, in chunks.

A clip's dropout masks depend on the key, the pass and the clip's index only: neither
chunks nor devices nor other clips change its predictions. Layers before the first
dropout give the same output in every pass and are computed once.

References:
  Gal and Ghahramani, *Dropout as a Bayesian Approximation*, ICML 2016.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.features.clips import Clips
from audiodd_jax.networks import models
from audiodd_jax.networks.models import Network
from audiodd_jax.runtime import devices as devices_lib
from audiodd_jax.runtime.devices import BATCH

# ``(network, images [b f t 1], ids [b], key)`` to an array or pytree of arrays with one
# row per clip.
OfClips = Callable[[Network, Array, Array, Array], Any]


def dropout_passes(
    model: nn.Module,
    network: Network,
    images: Float[Array, "b f t 1"],
    ids: Int[Array, " b"],
    key: Key[Array, ""],
    passes: int,
    has_tags: bool = False,
) -> Float[Array, "p b c *two"]:
    """Log-probabilities of stochastic forward passes, computed one after the other.

    ``ids`` are the indices of the clips in the pool, folded into the keys of their
    masks. Tags have two answers each.
    """
    part = functools.partial(models.apply, model, network.variables)
    stem = part("stem", images, train=False)
    # Linear networks and dropout_place=head drop before the last layer only.
    drops_inside = getattr(model, "block_dropout", 0) > 0
    features_of = functools.partial(part, "features", stem, train=False)
    same = None if drops_inside else features_of(drop=False)
    baseline = 0.0
    if network.start is not None:
        baseline = models.logits(model, network.start, images)

    def run_pass(index: Int[Array, ""]) -> Float[Array, "b c *two"]:
        pass_key = jax.random.fold_in(key, index)
        drop = jax.vmap(functools.partial(jax.random.fold_in, pass_key))(ids)
        features = features_of(drop=drop) if same is None else same
        out = part("logits", features, drop=drop)
        return log_probabilities(out - baseline, has_tags)

    return lax.map(run_pass, jnp.arange(passes))


def log_probabilities(
    logits: Float[Array, "b c"], has_tags: bool
) -> Float[Array, "b c *two"]:
    """Log-probabilities of the classes, or of having and lacking each tag."""
    if not has_tags:
        return jax.nn.log_softmax(logits)
    return jnp.stack([jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)], -1)


def embed(
    model: nn.Module,
    network: Network,
    images: Float[Array, "b f t 1"],
    has_tags: bool = False,
) -> tuple[Float[Array, "b d"], Float[Array, "b c *two"]]:
    """Features of the last layer and log-probabilities, both without dropout."""
    features, out = models.embed(model, network.variables, images)
    if network.start is not None:
        out = out - models.logits(model, network.start, images)
    return features, log_probabilities(out, has_tags)


def members(
    model: nn.Module,
    networks: Network,
    images: Float[Array, "b f t 1"],
    has_tags: bool = False,
) -> Float[Array, "p b c *two"]:
    """Log-probabilities by each of some stacked networks, without dropout."""
    return lax.map(lambda one: embed(model, one, images, has_tags)[1], networks)


def mean_probabilities(
    model: nn.Module,
    networks: Network,
    images: Float[Array, "b f t 1"],
    *_: Any,
    has_tags: bool = False,
) -> Float[Array, "b c"]:
    """Probabilities of classes or tags, averaged over stacked networks."""
    found = jnp.exp(members(model, networks, images, has_tags)).mean(0)
    return found[..., 0] if has_tags else found


def over_pool(
    function: OfClips,
    clips: Clips,
    chunk: int,
    devices: list[jax.Device] | None = None,
    between: Callable[[], None] = lambda: None,
) -> Callable[[Network, Int[np.ndarray, " b"], Key[Array, ""]], Any]:
    """Makes ``values(network, rows, key)`` of a function of clips, for rows of a pool.

    They are computed in chunks of one shape, on all devices. A clip's index is its row.
    The last chunk is padded; the padding's values are dropped.

    Args:
      chunk: clips at once on a device, which bounds the memory.
      devices: None: all, of all processes.
      between: called after each chunk; may raise.
    """
    mesh, is_streamed = devices_lib.make_mesh(devices=devices), clips.is_on_host
    program = pool_program(function, chunk, mesh, is_streamed)
    together = chunk * mesh.size
    in_chunk = np.tile(np.arange(chunk), mesh.size)
    if not is_streamed:
        clips = devices_lib.replicate(clips, mesh)

    def values(network: Network, rows: np.ndarray, key: Key[Array, ""]) -> Any:
        parts = []
        for start in range(0, rows.size, together):
            ids = rows[start : start + together]
            count = ids.size
            ids = np.concatenate([ids, np.full(together - count, ids[0])])
            if is_streamed:
                part = Clips(clips.take(ids), jnp.zeros(ids.size, jnp.int32))
                found = program(part, network, in_chunk, ids, key)
            else:
                found = program(clips, network, ids, ids, key)
            parts.append(jax.tree.map(lambda x, n=count: x[:n], found))
            # One chunk is computed while the one before is fetched, never more.
            if len(parts) > 1:
                parts[-2] = jax.tree.map(np.asarray, parts[-2])
            between()
        return jax.tree.map(lambda *x: jnp.asarray(np.concatenate(x)), *parts)

    return values


def pool_program(
    function: OfClips, chunk: int, mesh: Mesh, is_streamed: bool
) -> jax.stages.Wrapped:
    """The program of ``over_pool`` for one chunk: ``(clips, network, rows, ids, key)``.

    ``clips`` are the pool, or if they are streamed those of the chunk.
    """
    grid, together = devices_lib.grid_of(mesh), chunk * mesh.size
    everywhere, divided = PartitionSpec(), PartitionSpec(BATCH)

    def map_rows(clips: Any, network: Network, rows: Array, ids: Array, key: Array):
        values = function(network, clips.take(rows), ids, key)
        return jax.tree.map(lambda x: grid.gather(x, BATCH, together), values)

    clips_spec = divided if is_streamed else everywhere
    mapped = jax.shard_map(
        map_rows,
        mesh=mesh,
        in_specs=(clips_spec, everywhere, divided, divided, everywhere),
        out_specs=everywhere,
        check_vma=False,
    )
    return jax.jit(mapped)
