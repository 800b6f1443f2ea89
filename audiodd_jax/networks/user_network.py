"""Networks of users: any Flax module, linen or nnx, made by a factory of theirs.

A factory takes the number of classes, and for nnx the keyword ``rngs``:

    def make(num_classes): ...  # a linen module
    def make(num_classes, *, rngs): ...  # an nnx module

The module is called as ``module(x, train=...)`` with standardised spectrograms
``[b, f, t, 1]`` and returns logits ``[b, c]``. In training it uses the batch's
statistics and drops out. Its variables are parameters and batch statistics. If its call
takes ``drop`` too, then ``train=False, drop=True`` drops out with running statistics,
for Monte Carlo passes.
"""

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from audiodd_jax.config import extensions
from audiodd_jax.errors import UserError
from audiodd_jax.networks.layers import Drop

_COLLECTIONS = {"params", "batch_stats"}


class UserNetwork(nn.Module):
    """A user's network with the methods that those of this package have.

    What the last layer reads is not known of it: its logits stand for its features.

    Attributes:
      inner: the network.
      num_classes: ``c``.
      dropout: 1 if it can drop out at inference, else 0.
      block_dropout: the same, since nothing is known to come before its dropout.
    """

    inner: nn.Module
    num_classes: int
    dropout: float = 0.0
    block_dropout: float = 0.0

    def stem(
        self, x: Float[Array, "b f t 1"], *, train: bool
    ) -> Float[Array, "b f t 1"]:
        """What no dropout is known not to change: the spectrograms."""
        return x

    def features(
        self, stem: Float[Array, "b f t 1"], *, train: bool, drop: Drop = False
    ) -> Float[Array, "b c"]:
        """The network's logits; ``drop`` holds a key per clip, or is False."""
        if isinstance(drop, bool):
            return self(stem, train=train)
        inner, variables = self.inner.unbind()

        def one(image: Array, key: Array) -> Array:
            rngs = {"dropout": key}
            out = inner.apply(variables, image[None], rngs=rngs, train=False, drop=True)
            return out[0]

        return jax.vmap(one)(stem, drop).astype(jnp.float32)

    def logits(
        self, features: Float[Array, "b c"], *, drop: Drop = False
    ) -> Float[Array, "b c"]:
        """The features, which are logits already."""
        return features

    def __call__(
        self, x: Float[Array, "b f t 1"], *, train: bool
    ) -> Float[Array, "b c"]:
        """Logits in float32.

        Raises:
          UserError: the network returns something else.
        """
        out = self.inner(x, train=train)
        if getattr(out, "shape", None) != (x.shape[0], self.num_classes):
            shape = getattr(out, "shape", type(out).__name__)
            raise UserError(
                f"{_name(self.inner)} must return logits of shape "
                f"{(x.shape[0], self.num_classes)}, not {shape}"
            )
        return out.astype(jnp.float32)


def from_path(path: str, num_classes: int) -> UserNetwork:
    """The network of a factory ``package.module:name``.

    Raises:
      UserError: it cannot be imported, or makes no network that can be used.
    """
    return wrapped(extensions.from_path(path), num_classes)


def wrapped(source: Any, num_classes: int) -> UserNetwork:
    """A user's network, ready for training.

    Args:
      source: a linen module, or a factory of a linen or nnx module.
      num_classes: ``c``.

    Raises:
      UserError: it makes no network that can be used.
    """
    module, call = _made(source, num_classes)
    takes = inspect.signature(call).parameters
    is_open = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    if "train" not in takes and not is_open:
        raise UserError(
            f"{_name(module)} must be called as module(x, train=...): its call has no "
            "argument train"
        )
    drops = float("drop" in takes)
    return UserNetwork(module, num_classes, drops, drops)


def name_of(source: Any) -> str:
    """The name ``package.module:name`` of a linen module's class, or of a factory."""
    kind = type(source) if isinstance(source, nn.Module) else source
    return f"{kind.__module__}:{kind.__qualname__}"


def check_variables(variables: dict[str, Any]) -> None:
    """Checks that a network has parameters and batch statistics alone.

    Raises:
      UserError: it has other collections of variables.
    """
    if extra := sorted(set(variables) - _COLLECTIONS):
        raise UserError(
            f"the network has variables other than parameters and batch statistics: "
            f"{', '.join(extra)}"
        )


def _name(module: nn.Module) -> str:
    kind = getattr(module, "nnx_class", type(module))
    return getattr(kind, "__qualname__", str(kind))


def _made(source: Any, num_classes: int) -> tuple[nn.Module, Callable]:
    """A linen module, and the call of the module that it stands for."""
    if isinstance(source, nn.Module):
        return source, type(source).__call__
    if not callable(source):
        raise UserError(f"a network is a Flax module or a factory of one, not {source}")
    try:
        # nnx's own metaclass hides the signature of its classes.
        maker: Any = source.__init__ if isinstance(source, type) else source  # type: ignore[misc]
        if "rngs" in inspect.signature(maker).parameters:
            made = lambda: source(num_classes, rngs=nnx.Rngs(0))
            call = type(nnx.eval_shape(made)).__call__
            module = nnx.bridge.ToLinen(source, (num_classes,), metadata_fn=None)
            return module, call
        module = source(num_classes)
    except Exception as error:
        raise UserError(
            f"{name_of(source)} makes no network of {num_classes} classes: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(module, nn.Module):
        kind = type(module).__name__
        raise UserError(
            f"{name_of(source)} returns {kind}, not a linen module (a factory of an "
            "nnx module takes rngs)"
        )
    return module, type(module).__call__
