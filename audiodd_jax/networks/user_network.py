"""User-supplied Flax modules, linen or nnx, created by a factory.

A factory takes the number of classes, and for nnx the keyword ``rngs``:

    def make(num_classes): ...  # a linen module
    def make(num_classes, *, rngs): ...  # an nnx module

The module is called as ``module(x, train=...)`` with standardised spectrograms
``[b, f, t, 1]`` and returns logits ``[b, c]``. With ``train=True`` it uses the batch's
statistics and dropout. Its variables are parameters and batch statistics. If the call
also accepts ``drop``, Monte Carlo passes call it with ``train=False, drop=True`` for
dropout with running statistics.
"""

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from audiodd_jax.errors import UserError
from audiodd_jax.networks.layers import Drop, Images, Logits


class UserNetwork(nn.Module):
    """Gives a user's network the methods of ``Classifier``.

    Penultimate features are unavailable, so logits are used instead.

    Attributes:
      dropout: 1 if the module supports dropout at inference, else 0.
      block_dropout: the same, since any layer may come after dropout.
    """

    inner: nn.Module
    num_classes: int
    dropout: float = 0.0
    block_dropout: float = 0.0

    def stem(self, x: Images, *, train: bool) -> Images:
        """Returns the spectrograms, since dropout may change any layer."""
        return x

    def features(self, stem: Images, *, train: bool, drop: Drop = False) -> Logits:
        """Computes the logits; ``drop`` is False or a key per clip."""
        if isinstance(drop, bool):
            return self(stem, train=train)
        inner, variables = self.inner.unbind()

        def logits_of_clip(image: Array, key: Array) -> Array:
            rngs = {"dropout": key}
            out = inner.apply(variables, image[None], rngs=rngs, train=False, drop=True)
            return out[0]

        return jax.vmap(logits_of_clip)(stem, drop).astype(jnp.float32)

    def logits(self, features: Logits, *, drop: Drop = False) -> Logits:
        """Returns the features, which are logits already."""
        return features

    def __call__(self, x: Images, *, train: bool) -> Logits:
        """Computes logits in float32.

        Raises:
          UserError: the network returns another shape.
        """
        out = self.inner(x, train=train)
        if getattr(out, "shape", None) != (x.shape[0], self.num_classes):
            shape = getattr(out, "shape", type(out).__name__)
            raise UserError(
                f"{_name(self.inner)} must return logits of shape "
                f"{(x.shape[0], self.num_classes)}, not {shape}"
            )
        return out.astype(jnp.float32)


def wrapped(source: Any, num_classes: int) -> UserNetwork:
    """Wraps a linen module, or a factory of a linen or nnx module, for training.

    Raises:
      UserError: the network cannot be used.
    """
    module, call = _create(source, num_classes)
    parameters = inspect.signature(call).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if "train" not in parameters and not takes_any:
        raise UserError(
            f"{_name(module)} must be called as module(x, train=...): its call has no "
            "argument train"
        )
    supports_drop = float("drop" in parameters)
    return UserNetwork(module, num_classes, supports_drop, supports_drop)


def name_of(source: Any) -> str:
    """Returns the name ``package.module:name`` of a module's class or of a factory."""
    kind = type(source) if isinstance(source, nn.Module) else source
    return f"{kind.__module__}:{kind.__qualname__}"


def _name(module: nn.Module) -> str:
    kind = getattr(module, "nnx_class", type(module))
    return getattr(kind, "__qualname__", str(kind))


def _create(source: Any, num_classes: int) -> tuple[nn.Module, Callable]:
    """Creates a linen module; returns it with the ``__call__`` that the user wrote."""
    if isinstance(source, nn.Module):
        return source, type(source).__call__
    if not callable(source):
        raise UserError(f"a network is a Flax module or a factory of one, not {source}")
    try:
        # The metaclass of nnx hides the signature of its classes.
        factory: Any = source.__init__ if isinstance(source, type) else source  # type: ignore[misc]
        if "rngs" in inspect.signature(factory).parameters:
            create = lambda: source(num_classes, rngs=nnx.Rngs(0))
            call = type(nnx.eval_shape(create)).__call__
            module = nnx.bridge.ToLinen(source, (num_classes,), metadata_fn=None)
            return module, call
        module = source(num_classes)
    except Exception as error:
        raise UserError(
            f"{name_of(source)} cannot create a network of {num_classes} classes: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(module, nn.Module):
        kind = type(module).__name__
        raise UserError(
            f"{name_of(source)} returns {kind}, not a linen module (a factory of an "
            "nnx module takes rngs)"
        )
    return module, type(module).__call__
