import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.config import ModelConfig
from audiodd_jax.networks import models, parameter_count

SMALL = ModelConfig(depth=3, width=4, dropout=0.3)
KEY = jax.random.key(0)


def variants():
    for norm in ("batch", "instance", "group", "none"):
        for readout in ("flatten", "time_mean", "mean"):
            yield ModelConfig("convnet", 3, 4, norm, readout)
    for stem in ("imagenet", "small"):
        yield ModelConfig("resnet18", 1, 4, "batch", "mean", "random", stem)
    yield ModelConfig("resnet18", 1, 4, "none", "flatten")
    yield ModelConfig("linear")


@pytest.mark.parametrize("config", variants(), ids=str)
@pytest.mark.parametrize("shape", [(16, 24), (9, 5), (1, 1)])
def test_any_size_gives_logits_and_the_counted_parameters(config, shape):
    model = models.make(config, 3)
    variables = jax.eval_shape(lambda: models.init(KEY, model, shape))
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(variables.params))
    assert count == parameter_count.parameters(config, shape, 3)
    images = jnp.zeros((2, *shape, 1))
    out = jax.eval_shape(lambda v: models.logits(model, v, images), variables)
    assert out.shape == (2, 3)


def test_the_published_sizes():
    """ResNet-18 has 11.69 M parameters with three channels and 1,000 classes."""
    config = ModelConfig("resnet18", readout="mean")
    extra_channels = 2 * 49 * 64
    assert (
        parameter_count.parameters(config, (224, 224), 1000) + extra_channels
        == 11_689_512
    )


@pytest.mark.parametrize(
    "name", ["convnet", pytest.param("resnet18", marks=pytest.mark.slow), "linear"]
)
def test_dropout_can_stay_on_at_inference(name):
    config = dataclasses.replace(SMALL, name=name)
    model = models.make(config, 3)
    variables = jax.jit(lambda: models.init(KEY, model, (16, 16)))()
    # The head starts at zero: give it something to drop.
    variables = jax.tree.map(lambda p: p + 0.1, variables)
    collections = {"params": variables.params, "batch_stats": variables.statistics}
    images = jax.random.normal(KEY, (4, 16, 16, 1))

    @functools.partial(jax.jit, static_argnums=1)
    def pass_(seed, drop):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(collections, images, train=False, drop=drop, rngs=rngs)

    np.testing.assert_array_equal(pass_(0, None), pass_(1, None))
    np.testing.assert_array_equal(pass_(0, False), pass_(0, None))
    assert np.abs(pass_(0, True) - pass_(1, True)).max() > 1e-3
    np.testing.assert_array_equal(pass_(1, True), pass_(1, True))


def test_batch_statistics_are_those_of_the_batch():
    model = models.make(ModelConfig(depth=1, width=2), 2)
    variables = models.init(KEY, model, (4, 4))
    images = 3 + 2 * jax.random.normal(KEY, (6, 4, 4, 1))
    kernel = variables.params["Conv_0"]["kernel"]
    from audiodd_jax.networks import convolution

    y = convolution.convolve(images, kernel)
    _, statistics = models.train_logits(model, variables, images, KEY)
    found = statistics["BatchNorm_0"]
    np.testing.assert_allclose(found["mean"], 0.1 * y.mean((0, 1, 2)), rtol=1e-4)
    want = 0.9 + 0.1 * y.var((0, 1, 2))
    np.testing.assert_allclose(found["var"], want, rtol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "instance", "group", "none"])
def test_low_precision_logits_are_float32_and_close(norm):
    config = ModelConfig(depth=2, width=8, norm=norm)
    full, low = models.make(config, 3), models.make(config, 3, jnp.bfloat16)
    variables = models.init(KEY, full, (8, 8))
    variables = jax.tree.map(
        lambda p: p + 0.1 * jax.random.normal(KEY, p.shape), variables
    )
    images = jax.random.normal(KEY, (4, 8, 8, 1))
    a, b = (models.logits(model, variables, images) for model in (full, low))
    assert b.dtype == jnp.float32
    assert 0 < np.abs(a - b).max() < 0.1 * np.abs(a).max()
