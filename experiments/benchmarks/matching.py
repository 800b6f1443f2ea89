"""Compares our gradient of a gradient with the one that JAX derives.

    python experiments/benchmarks/matching.py --turns=5

Measures one class of gradient matching: the distance between the gradients of real and
synthetic clips, and its gradient with respect to the synthetic ones. "Derived" computes
the same with XLA's own transposes of convolutions. Turns alternate, and medians are
compared.
"""

import statistics

import alternate
import jax
import jax.numpy as jnp
from absl import app, flags

from audiodd_jax.distillation import distribution_matching, gradient_matching
from audiodd_jax.networks import convolution, layers, models
from audiodd_jax.networks.classifier import ConvNet

_SHAPES = flags.DEFINE_multi_string(
    "shape",
    ["32,32,10,32,64", "32,32,1,32,64", "64,64,10,32,64", "32,32,5,64,128"],
    "WIDTH,REAL,SYNTHETIC,BINS,FRAMES",
)
_TURNS = flags.DEFINE_integer("turns", 5, "alternating turns")


def step(loss, width, real, synthetic, bins, frames):
    """Returns a compiled turn of one class's step."""
    model = ConvNet(
        10, depth=3, width=width, norm="instance", readout="flatten", head="random"
    )
    keys = jax.random.split(jax.random.key(0), 3)
    params = models.init(keys[0], model, (bins, frames)).params
    x = jax.random.normal(keys[1], (real, bins, frames, 1))
    x_s = jax.random.normal(keys[2], (synthetic, bins, frames, 1))
    found = jax.jit(jax.value_and_grad(loss, argnums=3), static_argnums=1)
    found = found.lower(params, model, x, x_s).compile()
    return lambda: jax.block_until_ready(found(params, x, x_s))


def dc(params, model, real, synthetic):
    label = jnp.int32(0)
    return gradient_matching.matching_loss(params, model, real, synthetic, label)


class _Derived:
    """A convolution with JAX's own gradients, under the same name."""

    conv = staticmethod(convolution.convolve)


def main(_):
    print("| width | real, synthetic | size | dc, s | derived, s | times | dm, s |")
    print("|---|---|---|---|---|---|---|")
    for text in _SHAPES.value:
        sizes = [int(n) for n in text.split(",")]
        found = {"ours": step(dc, *sizes)}
        found["dm"] = step(distribution_matching.matching_loss, *sizes)
        layers.convolution = _Derived
        found["derived"] = step(dc, *sizes)
        layers.convolution = convolution
        seconds = {
            name: statistics.median(values)
            for name, values in alternate.measure(found, _TURNS.value, 1).items()
        }
        width, real, synthetic, bins, frames = sizes
        print(
            f"| {width} | {real}, {synthetic} | {bins}x{frames} "
            f"| {seconds['ours']:.4f} | {seconds['derived']:.4f} "
            f"| {seconds['derived'] / seconds['ours']:.2f} | {seconds['dm']:.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
