"""One RFAD step against an independent implementation's numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from audiodd_jax.config import Config
from audiodd_jax.distillation import kernel_methods, rfad
from audiodd_jax.features.clips import Clips
from audiodd_jax.kernels import random_kernels
from audiodd_jax.kernels.random_kernels import Plan
from audiodd_jax.networks import random_conv
from audiodd_jax.runtime.devices import Grid

pytestmark = pytest.mark.optimized

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


@pytest.fixture(params=["float64", "float32"])
def dtype(request, float64):
    with float64(request.param == "float64"):
        yield request.param


@pytest.fixture
def step(golden, dtype):
    """The golden step's numbers in our layout, and a comparison with them."""
    numbers = golden("rfad_step.npz")
    array = lambda a: jnp.asarray(a, dtype)
    nhwc = lambda name: array(numbers[name].transpose(0, 2, 3, 1))
    stacked = lambda name: array(np.stack([numbers[f"net{i}/{name}"] for i in (0, 1)]))
    networks = random_conv.ConvParams(
        tuple(
            stacked(f"conv{j}/kernel_oihw").transpose(0, 3, 4, 2, 1) for j in range(3)
        ),
        tuple(stacked(f"conv{j}/bias") for j in range(3)),
    )
    config = Config()
    config.optimizer.learning_rate = 1e-3
    config.rfad.regularizer = float(numbers["regularizer"])
    params = kernel_methods.Params(
        nhwc("x_coreset_nchw"),
        array(numbers["y_coreset"]),
        array(numbers["platt_log_scale"]),
    )

    def agree(ours, name):
        expected = numbers[name]
        if name.endswith("_nchw"):
            expected = expected.transpose(0, 2, 3, 1)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            np.asarray(ours) / scale, expected / scale, rtol=0, atol=TOLERANCE[dtype]
        )

    labels = jnp.asarray(numbers["labels_batch"], jnp.int32)
    return networks, config, params, nhwc("x_batch_nchw"), labels, agree


def kernels_of(networks, config, dtype, plan):
    """Returns the kernel function of two given networks."""
    draw = lambda number: jax.tree.map(lambda p: p[number], networks)
    network = dataclasses.replace(config, width=networks.biases[0].shape[-1])

    def kernels(key, x_b, x_s):
        sums = random_kernels.network_sums(
            draw, Grid().share("networks", 2), x_b, x_s, network, dtype, plan
        )
        d = random_conv.num_features(x_b.shape[1:3], network)
        scale = lambda k: random_kernels.scale_kernel(k, 2, d, network)
        return jax.tree.map(scale, sums)

    return kernels


def test_kernels(step, dtype):
    networks, config, params, x_batch, _, agree = step
    kernels = kernels_of(networks, config.network, dtype, Plan())
    bs, ss = kernels(None, x_batch, params.images)
    agree(ss, "k_coreset_coreset_unregularized")
    agree(bs, "k_batch_coreset")


@pytest.mark.parametrize("loss", ["mse", "platt"])
@pytest.mark.parametrize("plan", [Plan(), Plan(3, 2), Plan(3, 2, "nothing")], ids=str)
def test_loss_gradients_and_update(step, loss, plan, dtype):
    networks, config, params, x_batch, labels, agree = step
    config.rfad.loss = loss
    kernels = kernels_of(networks, config.network, dtype, plan)
    batch = Clips(x_batch, labels)
    found = jax.jit(
        jax.value_and_grad(
            lambda p: rfad.loss(p, jax.random.key(0), batch, kernels, config.rfad),
            has_aux=True,
        )
    )
    (value, predictions), grads = found(params)
    agree(predictions, "predictions")
    agree(value, f"{loss}/loss")
    agree(grads.images, f"{loss}/grad_x_nchw")
    agree(grads.labels, f"{loss}/grad_y")
    if loss == "platt":
        agree(grads.log_scale, "platt/grad_log_scale")

    rates = kernel_methods.Rates.of(config.optimizer, config.loop.steps)
    tx = kernel_methods.optimizer(config.optimizer.schedule, rates)
    updates, _ = tx.update(grads, tx.init(params), params)
    after = optax.apply_updates(params, updates)
    agree(after.images, f"{loss}/x_after_one_adabelief_step_nchw")
    agree(after.labels, f"{loss}/y_after_one_adabelief_step")
