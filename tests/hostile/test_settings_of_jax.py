"""Settings of JAX, of the environment or of the calling program, change no result.

The environment sets the first values of what ``jax.config.update`` changes.
"""

import contextlib

import jax
import numpy as np
import pytest
from command_line import TINY_SETTINGS

import audiodd_jax

ODD = {
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_debug_key_reuse": True,
    "jax_check_tracer_leaks": True,
    "jax_legacy_prng_key": "error",
    "jax_transfer_guard": "disallow",
    "jax_default_matmul_precision": "bfloat16",
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 7,
    "jax_high_dynamic_range_gumbel": True,
    "jax_enable_x64": True,
}


def settings():
    return {name: getattr(jax.config, name) for name in ODD}


@contextlib.contextmanager
def odd_settings():
    """Sets all of them for the program, and checks that they are left alone."""
    before = settings()
    for name, value in ODD.items():
        jax.config.update(name, value)
    try:
        yield
        assert settings() == ODD
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        assert settings() == before


def in_one_thread():
    """The settings of a ``with`` block, which hold in the calling thread only."""
    stack = contextlib.ExitStack()
    for name, value in ODD.items():
        if change := getattr(jax, name.removeprefix("jax_"), None) is not None:
            change = getattr(jax, name.removeprefix("jax_"))
            stack.enter_context(change(value))
    return stack


def use_everything(folder):
    """Calls every public function; returns arrays and numbers of their results."""
    changes = {**TINY_SETTINGS, "coreset__views": 2}
    config = audiodd_jax.for_dataset("tones", **changes)
    run = audiodd_jax.distill(config, folder / "run")
    coreset = audiodd_jax.load_coreset(folder / "run" / "coreset.npz")
    recipe = {"model__depth": 2, "model__width": 4, "training__steps": 4}
    training = audiodd_jax.for_model(config, "convnet", **recipe)
    trained = audiodd_jax.train(training, folder / "trained", coreset)
    networks = audiodd_jax.load_networks(folder / "trained" / "networks.npz")
    rounds = {"active__budgets": ("2/class",), "active__initial": "1/class"}
    active = audiodd_jax.for_active(config, "convnet", **recipe, **rounds)
    audiodd_jax.export(coreset, "numpy", folder / "export", training)
    wave = np.sin(np.arange(8000) / 9).astype(np.float32)
    images = coreset.normalize(wave, 8000)
    return [
        coreset.images,
        coreset.labels,
        coreset.teacher_labels,
        coreset.unpack().images,
        coreset.views().images,
        coreset.sounds(iterations=2),
        images,
        networks.predict(images),
        run.result["test_accuracies"],
        audiodd_jax.evaluate(coreset).accuracies,
        trained.scores.accuracies,
        audiodd_jax.active(active, folder / "active")["test_accuracy"],
        audiodd_jax.prepare(config).test.images.mean(),
    ]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return [np.asarray(x) for x in use_everything(tmp_path_factory.mktemp("plain"))]


def same(results, expected):
    for ours, theirs in zip(results, expected, strict=True):
        ours = np.asarray(ours)
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_settings_of_the_whole_program(plain, tmp_path):
    with odd_settings():
        results = [np.asarray(x) for x in use_everything(tmp_path)]
    same(results, plain)
