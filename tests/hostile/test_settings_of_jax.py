"""Settings of JAX, of the environment or of the calling program, change no result.

The environment sets the first values of what ``jax.config.update`` changes.
"""

import contextlib
import inspect
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import TINY_SELECTION, TINY_SETTINGS

import audiodd_jax
from audiodd_jax.active_learning import session
from audiodd_jax.commands import main, report
from audiodd_jax.runtime.environment import standard_numerics

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
def of_program():
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


@contextlib.contextmanager
def of_thread():
    """Sets those that JAX can set for the calling thread alone."""
    before = settings()
    with contextlib.ExitStack() as stack:
        for name, value in ODD.items():
            change = getattr(jax, name.removeprefix("jax_"), None)
            if change is not None:
                stack.enter_context(change(value))
        inside = settings()
        yield
        assert settings() == inside != before
    assert settings() == before


WAYS = {"program": of_program, "thread": of_thread}


@pytest.mark.parametrize("way", WAYS)
def test_a_block_has_the_defaults(way):
    standard = settings()
    with WAYS[way](), standard_numerics():
        inside = settings()
        (jnp.zeros((2, 3)) + jnp.arange(3)) / 0  # ranks, types and infinities
        with standard_numerics(float64=True):
            assert jnp.ones(1).dtype == jnp.float64
            with standard_numerics():  # as around it
                assert jnp.ones(1).dtype == jnp.float64
            with standard_numerics(float64=False):
                assert jnp.ones(1).dtype == jnp.float32
        assert jnp.ones(1).dtype == jnp.float32
    allowed = {"jax_transfer_guard": "allow"}
    assert inside | allowed == standard | allowed


def test_other_threads_of_the_caller_keep_their_settings():
    seen = {}
    with standard_numerics(float64=True):
        thread = threading.Thread(target=lambda: seen.update(settings()))
        thread.start()
        thread.join()
    assert seen == settings()


@pytest.mark.parametrize("way", WAYS)
def test_a_coreset_and_a_command(way, tmp_path, capsys):
    coreset = audiodd_jax.load_coreset("example")
    wave = np.sin(np.arange(8000) / 9).astype(np.float32)
    expected = [coreset.normalize(wave, 8000), coreset.unpack().images]
    with WAYS[way]():
        found = [coreset.normalize(wave, 8000), coreset.unpack().images]
        found = [np.asarray(jax.device_get(values)) for values in found]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == np.float32
    contents = []
    for name in ("plain", "odd"):
        context = WAYS[way] if name == "odd" else contextlib.nullcontext
        with context():
            main.main(["distill", *TINY_SELECTION, f"--workdir={tmp_path / name}"])
        contents.append((tmp_path / name / "coreset.npz").read_bytes())
    assert contents[0] == contents[1]


def test_a_prepared_dataset_is_used_under_strict_settings():
    config = audiodd_jax.for_dataset("tones", features__n_mels=8, features__frames=8)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        clips = audiodd_jax.prepare(config).test
        assert clips.images.shape == (len(clips.labels), 8, 8, 1)
        assert clips.take(np.arange(3)).shape == (3, 8, 8, 1)


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
    assert audiodd_jax.for_session(str(folder)).session.sounds == str(folder)
    audiodd_jax.export(coreset, "numpy", folder / "export", training)
    report.report([folder / "run"], folder / "report")
    wave = np.sin(np.arange(8000) / 9).astype(np.float32)
    images = coreset.normalize(wave, 8000)
    results = [
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
        audiodd_jax.prepare(config).train.labels,
    ]
    return [np.asarray(jax.device_get(values)) for values in results]


def test_no_public_function_is_left_out():
    """``use_everything`` calls all but those whose trainings take too long."""
    text, slow = inspect.getsource(use_everything), ("score", "label_rounds")
    for name in audiodd_jax.__all__:
        function = getattr(audiodd_jax, name)
        if inspect.isfunction(function) and name not in slow:
            assert f"audiodd_jax.{name}(" in text
    score = inspect.getsource(sys.modules[audiodd_jax.score.__module__])
    assert "@standard_numerics()\ndef score(" in score
    # ``label_rounds`` computes in this method alone.
    rounds = inspect.getsource(session)
    assert "@standard_numerics()\n    def next_batch(" in rounds


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Results without odd settings, with a teacher of their own."""
    place = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIODD_CACHE", str(place / "cache"))
        return use_everything(place)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_public_function(way, plain, tmp_path):
    with WAYS[way]():
        results = use_everything(tmp_path)
    for ours, theirs in zip(results, plain, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
