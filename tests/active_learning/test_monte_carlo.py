"""MC-dropout over a pool: masks of clips, chunks, devices, shared computation."""

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.active_learning import monte_carlo, query
from audiodd_jax.config import presets
from audiodd_jax.errors import UserError
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.networks import models
from audiodd_jax.networks.models import Network

KEY = jax.random.key(3)
MODELS = ("convnet", "resnet18", "linear")
# The ResNet takes half a minute to compile.
DROPPING = ("convnet", pytest.param("resnet18", marks=pytest.mark.slow), "linear")


def network(name="convnet", dropout=0.3, width=4, place="everywhere"):
    config = presets.for_active(
        presets.for_dataset("tones"),
        name,
        model__dropout=dropout,
        model__dropout_place=place,
        model__head="random",
        model__width=width,
    )
    model = models.make(config.model, 3)
    return model, Network(models.init(jax.random.key(1), model, (16, 16)), None)


def images(b=7, seed=0):
    return jax.random.normal(jax.random.key(seed), (b, 16, 16, 1))


def passes(name="convnet", b=7, rows=None, count=5, **options):
    model, net = network(name, **options)
    rows = np.arange(b) if rows is None else rows
    return monte_carlo.dropout_passes(
        model, net, images(b)[rows], jnp.asarray(rows), KEY, count
    )


@pytest.mark.parametrize(
    ("name", "place"),
    [("convnet", "everywhere"), ("convnet", "head"), ("linear", "head")],
)
def test_passes_match_dropout_of_flax(name, place):
    """Mean and deviation agree with flax's own dropout, as far as draws can."""
    count = 600
    model, net = network(name, place=place)
    found = passes(name, count=count, place=place)
    collections = {
        "params": net.variables.params,
        "batch_stats": net.variables.statistics,
    }

    @jax.jit
    def reference(keys):
        one = lambda key: jax.nn.log_softmax(
            model.apply(
                collections, images(), train=False, drop=True, rngs={"dropout": key}
            )
        )
        return jax.lax.map(one, keys)

    expected = reference(jax.random.split(jax.random.key(9), count))
    error = expected.std(0) * np.sqrt(2 / count)
    # 21 numbers: five standard errors are one in a hundred thousand.
    assert (jnp.abs(found.mean(0) - expected.mean(0)) < 5 * error).all()
    np.testing.assert_allclose(found.std(0) / expected.std(0), 1, atol=0.25)
    np.testing.assert_allclose(jnp.exp(found).sum(-1), 1, rtol=1e-5)


def test_every_pass_and_clip_has_its_own_mask():
    same = jnp.tile(images(1), (4, 1, 1, 1))
    model, net = network(width=16)  # wide enough that no two masks are the same
    found = monte_carlo.dropout_passes(model, net, same, jnp.arange(4), KEY, 3)
    flat = np.asarray(found).reshape(12, -1)
    assert len(np.unique(flat, axis=0)) == 12
    again = monte_carlo.dropout_passes(model, net, same, jnp.zeros(4, int), KEY, 3)
    assert (again == again[:, :1]).all()


@pytest.mark.parametrize("name", DROPPING)
def test_the_passes_of_a_clip_are_independent_of_other_clips(name):
    whole = passes(name)
    order = np.array([4, 2, 6])
    np.testing.assert_allclose(passes(name, rows=order), whole[:, order], atol=2e-5)


def test_more_passes_extend_fewer_passes():
    np.testing.assert_array_equal(passes(count=5)[:3], passes(count=3))


def test_outputs_are_centred_as_in_training():
    model, net = network()
    centred = Network(net.variables, net.variables)
    found = monte_carlo.dropout_passes(
        model, centred, images(), jnp.arange(7), KEY, 400
    )
    # A network minus itself leaves the effect of dropout only.
    assert jnp.abs(found.mean(0) - np.log(1 / 3)).max() < 0.2
    _, log_probs = monte_carlo.embed(model, centred, images())
    np.testing.assert_allclose(log_probs, np.log(1 / 3), rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_features_are_the_inputs_of_the_last_layer(name):
    model, net = network(name)
    features, log_probs = monte_carlo.embed(model, net, images())
    (head,) = (v for k, v in net.variables.params.items() if k.startswith("Head"))
    dense = head["Dense_0"]
    out = features @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(jax.nn.log_softmax(out), log_probs, atol=1e-5)


@pytest.mark.parametrize("place", ["everywhere", "head"])
def test_layers_before_the_first_dropout_run_once(place):
    """Before the last layer alone, the loop of passes holds no convolution."""
    model, net = network(place=place)
    function = lambda x: monte_carlo.dropout_passes(
        model, net, x, jnp.arange(7), KEY, 5
    )
    text = jax.jit(function).lower(images()).compile().as_text()
    bodies = [
        text.split(f"%{body} ", 1)[1].split("\n}", 1)[0]
        for body in set(re.findall(r"body=%?([\w.-]+)", text))
    ]
    assert any(" convolution(" in body for body in bodies) == (place == "everywhere")


def test_a_network_without_dropout_is_refused():
    settings = presets.for_active(presets.for_dataset("tones"), "convnet").active
    model, _ = network(dropout=0.0)
    with pytest.raises(UserError, match=r"needs --config\.model\.dropout above 0"):
        query.clip_function(settings, model)


def splits(b=11):
    """The same clips as each kind of split."""
    rng = np.random.default_rng(0)
    features = rng.uniform(-60, 0, (b, 16, 16)).astype(np.float16)
    stats = Normalization(np.full(16, -30, np.float32), np.full(16, 17, np.float32))
    labels = jnp.arange(b, dtype=jnp.int32) % 3
    host = Clips(features, labels, stats, rows=np.arange(b))
    on_device = Clips(jnp.asarray(features), labels, jax.device_put(stats))
    return {
        "host": host,
        "device": on_device,
        "split": Clips(on_device.images, labels),
    }


@pytest.mark.parametrize("kind", ["host", "device", "split"])
@pytest.mark.parametrize("chunk", [2, 4, 64])
def test_chunked_scores_match_those_of_the_whole_pool(kind, chunk):
    """Whatever divides or not, wherever the clips lie; padding leaves no trace."""
    model, net = network()
    seen = []

    def of_clips(network, images, ids, key):
        seen.append(images.shape[0])
        out = monte_carlo.dropout_passes(model, network, images, ids, key, 2)
        return out.sum(0), ids

    split = splits()[kind]
    one_device = jax.local_devices()[:1]
    values_of = monte_carlo.over_pool(of_clips, split, chunk, devices=one_device)
    rows = np.array([10, 3, 4, 0, 7])
    values, ids = values_of(net, rows, KEY)
    assert ids.tolist() == rows.tolist()
    # One program, of one shape, traced once.
    assert seen == [chunk]
    expected = monte_carlo.dropout_passes(
        model, net, split.take(rows), jnp.asarray(rows), KEY, 2
    )
    np.testing.assert_allclose(values, expected.sum(0), atol=2e-5)


def test_every_chunk_can_stop_the_scoring():
    class Enough(Exception):  # noqa: N818
        pass

    calls = []

    def between():
        calls.append(0)
        if len(calls) == 2:
            raise Enough

    clips = splits()["split"]
    values_of = monte_carlo.over_pool(lambda n, x, i, k: i, clips, 2, between=between)
    _, net = network()
    with pytest.raises(Enough):
        values_of(net, np.arange(11), KEY)


MANY = """
import jax
jax.config.update("jax_num_cpu_devices", 4)
import numpy as np
import test_monte_carlo as t
from audiodd_jax.active_learning import monte_carlo

model, net = t.network()
def of_clips(network, images, ids, key):
    return monte_carlo.dropout_passes(model, network, images, ids, key, 3).sum(0)
for split in t.splits().values():
    found = []
    for devices in (jax.devices()[:1], jax.devices()):
        values_of = monte_carlo.over_pool(of_clips, split, 8 // len(devices), devices)
        found.append(values_of(net, np.arange(11), t.KEY))
    assert len(jax.devices()) == 4
    np.testing.assert_allclose(*found, atol=2e-5)
print("same")
"""


@pytest.mark.slow
@pytest.mark.optimized
def test_four_devices_score_like_one():
    folder = os.path.dirname(__file__)
    done = subprocess.run(
        [sys.executable, "-c", MANY],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": folder, "JAX_PLATFORMS": "cpu"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "same" in done.stdout
