import dataclasses
import math
import os
import signal

import checks
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.config import FeaturesConfig, presets
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation import loop, registry, rfad, steps
from audiodd_jax.distillation.cost import Sizes
from audiodd_jax.distillation.method import Context, Method
from audiodd_jax.errors import UserError
from audiodd_jax.features import batches, normalization
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.kernels import ridge
from audiodd_jax.runtime import devices
from audiodd_jax.runtime.checkpoints import Checkpoints
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.runtime.signals import Interrupted

SMALL = {
    "network__depth": 2,
    "network__width": 4,
    "rfad__networks": 2,
    "coreset__samples_per_class": 2,
    "loop__steps": 12,
    "loop__batch_size": 16,
    "loop__log_every": 2,
    "loop__eval_every": 4,
    "loop__checkpoint_every": 4,
    "evaluation__networks": 2,
    "augment__time_shift": 0.2,
}


def settings(**changes):
    return presets.for_dataset("tones", **{**SMALL, **changes})


def data(validation=12, noise=0.5):
    """Three classes, each a bump at its own mel bin."""

    def split(b, seed):
        rng = np.random.default_rng(seed)
        labels = (np.arange(b) % 3).astype(np.int32)
        images = noise * rng.standard_normal((b, 8, 8, 1)).astype(np.float32)
        images[np.arange(b), 1 + 2 * labels] += 1.5
        return Clips(jnp.asarray(images), jnp.asarray(labels))

    return Dataset(
        train=split(30, 0),
        validation=split(validation, 1),
        test=split(12, 2),
        class_names=("a", "b", "c"),
        normalization=Normalization(*(np.full(8, v, np.float32) for v in (0, 10))),
        features=FeaturesConfig(n_mels=8, frames=8),
        noise=None,
        fold=0,
        is_partial=False,
        name="tones",
        version="1",
        licence="none",
        train_bytes=1,
    )


def run(path, config=None, prepared=None):
    config = config or settings()
    with RunDirectory(path, dataclasses.asdict(config)) as directory:
        return loop.distill(config, prepared or data(), directory)


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.optimized
@pytest.mark.parametrize("step", [2, 6, 10])
def test_a_resumed_run_matches_an_uninterrupted_one(tmp_path, step):
    whole = run(tmp_path / "whole")
    with checks.killed_at(step):
        run(tmp_path / "killed")
    resumed = run(tmp_path / "killed")
    assert_same(whole.best, resumed.best)
    assert_same(whole.start, resumed.start)
    assert whole.best_step == resumed.best_step
    strip = lambda rows: [{k: v for k, v in r.items() if k != "seconds"} for r in rows]
    assert strip(whole.history) == strip(resumed.history)
    assert [row["step"] for row in resumed.history] == list(range(0, 13, 2))


def test_runs_without_a_directory_have_the_same_numbers(tmp_path):
    assert_same(run(tmp_path / "run").best, loop.distill(settings(), data()).best)


def test_the_seed_decides():
    first, again, other = (
        loop.distill(settings(seed=seed, loop__steps=2), data()) for seed in (0, 0, 1)
    )
    assert_same(first.best, again.best)
    assert np.abs(first.best.images - other.best.images).max() > 0


def test_the_coreset_improves_on_its_start():
    result = loop.distill(settings(loop__steps=60), data(noise=2.0))
    validations = [r["validation_loss"] for r in result.history if "best" in r]
    assert validations[-1] < 0.9 * validations[0]
    assert result.best_step > 0
    assert result.steps == 60


def test_the_choice_is_by_validation():
    """Keeps the last coreset within its standard error of the highest accuracy."""
    result = loop.distill(settings(loop__steps=24), data(noise=3.0))
    rows = [r for r in result.history if "validation_accuracy" in r]
    highest, kept = -1.0, None
    for row in rows:
        accuracy = row["validation_accuracy"]
        if accuracy + row["validation_error"] >= highest:
            kept = row["step"]
        highest = max(highest, accuracy)
    assert result.best_step == kept


def test_without_validation_the_last_is_kept():
    result = loop.distill(settings(), data(validation=0))
    assert result.best_step == 12
    assert "validation_accuracy" not in result.history[-1]


def test_early_stopping(tmp_path):
    config = settings(loop__steps=200, loop__patience=2, optimizer__learning_rate=1e-30)
    result = run(tmp_path / "run", config, data(noise=3.0))
    # Nothing changes, and no worse counts as better: the last is the best.
    assert result.best_step == result.steps
    config = settings(loop__steps=200, loop__patience=2, optimizer__learning_rate=3.0)
    result = run(tmp_path / "other", config)
    assert result.steps == result.best_step + 8 < 200


def test_signals_save_and_stop(tmp_path, monkeypatch):
    log = RunDirectory.log

    def log_and_signal(self, row):
        log(self, row)
        if row["step"] == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunDirectory, "log", log_and_signal)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped by SIGTERM after step"):
        run(tmp_path / "run")
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.setattr(RunDirectory, "log", log)
    assert_same(run(tmp_path / "run").best, loop.distill(settings(), data()).best)


def test_a_non_finite_loss_keeps_the_last_good_state(tmp_path):
    prepared = data()
    make = registry.METHODS["rfad"]

    def poisoned(*arguments):
        method = make(*arguments)

        def bad_step(state, batch, rates):
            state, metrics = method.step(state, batch, rates)
            loss = jnp.where(state.step > 5, jnp.nan, metrics["loss"])
            return state, {**metrics, "loss": loss}

        return method._replace(step=bad_step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.METHODS, "rfad", poisoned)
        with pytest.raises(
            UserError, match="is not a finite number at step 6"
        ) as raised:
            run(tmp_path / "run", prepared=prepared)
    kept = tmp_path / "run" / "checkpoints" / "4"
    assert str(kept) in str(raised.value)
    assert kept.is_dir()
    # Without the fault, the run continues from that state.
    whole = loop.distill(settings(), prepared)
    assert_same(run(tmp_path / "run").best, whole.best)


def test_a_chunk_is_traced_once_and_moves_nothing_to_the_host():
    config, prepared = settings(), data()
    sizes = Sizes(8, 8, 3, 6, 16, 30, 0)
    method = rfad.make(config, Context(sizes, prepared.normalization))
    traced = chex.assert_max_traces(method.step, n=1)
    chex.clear_trace_counter()
    prepared, _ = on_host(prepared)  # as a dataset is loaded
    chunk = steps.make_chunk(
        method._replace(step=traced),
        batches.uniform(config.loop.batch_size),
        config.augment,
        prepared.normalization,
    )
    start = jax.tree.map(jnp.copy, loop.distill(config, prepared).start)
    mesh = devices.make_mesh()
    state = devices.replicate(method.init(jax.random.key(0), start), mesh)
    clips, key = devices.replicate((prepared.train, jax.random.key(1)), mesh)
    state, _ = chunk(state, clips, 2, key)
    with jax.transfer_guard("disallow"):
        before = state
        state, metrics = chunk(state, clips, 2, key)
    assert int(state.step) == 4
    assert all(value.shape == () for value in metrics.values())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))


def on_host(prepared):
    """The same clips as stored in the feature cache: float16, not standardised."""
    stats = prepared.normalization
    decibel = np.asarray(normalization.invert(prepared.train.images, stats))
    features = decibel.astype(np.float16)
    device = Clips(jnp.asarray(features), prepared.train.labels, stats)
    clips = np.arange(len(features))
    host = Clips(features, prepared.train.labels, stats, rows=clips)
    replace = lambda train: dataclasses.replace(prepared, train=train)
    return replace(jax.device_put(device)), replace(host)


@pytest.mark.parametrize("drawn", ["clips", "recordings"])
def test_a_streamed_run_matches_the_run_on_the_device(tmp_path, drawn):
    """The batches are the same bits; two programs round the steps differently."""
    device, host = on_host(data())
    config = settings(loop__draw=drawn)
    outcomes = [run(tmp_path / str(i), config, p) for i, p in enumerate((device, host))]
    assert_same(outcomes[0].start, outcomes[1].start)
    best = [jax.tree.leaves(outcome.best) for outcome in outcomes]
    for a, b in zip(*best, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_streamed_run_resumes_to_the_same_bits(tmp_path, monkeypatch):
    _, host = on_host(data())
    whole = run(tmp_path / "whole", None, host)
    real, saved = Checkpoints.save, []

    def save(self, step, state):
        real(self, step, state)
        saved.append(step)
        if len(saved) == 2:
            raise checks.Killed

    monkeypatch.setattr(Checkpoints, "save", save)
    with pytest.raises(checks.Killed):
        run(tmp_path / "cut", None, host)
    monkeypatch.setattr(Checkpoints, "save", real)
    assert_same(run(tmp_path / "cut", None, host).best, whole.best)


def test_background_noise_needs_noise():
    config = settings(augment__background=0.5)
    with pytest.raises(UserError, match="tones does not have"):
        loop.distill(config, data())
    noise = jnp.asarray(np.random.default_rng(0).uniform(-60, 0, (5, 8, 8)))
    with_noise = dataclasses.replace(data(), noise=noise)
    noisy = loop.distill(config, with_noise)
    clean = loop.distill(settings(), with_noise)
    assert np.abs(noisy.best.images - clean.best.images).max() > 1e-3


@pytest.mark.slow
@pytest.mark.optimized
def test_kernels_in_float64_change_little(x64):
    config = settings(rfad__kernel_precision="float64")
    wide, narrow = (loop.distill(c, data()).best for c in (config, settings()))
    assert wide.images.dtype == jnp.float32
    np.testing.assert_allclose(wide.images, narrow.images, atol=0.02)


def test_kernels_in_float64_need_jax_enable_x64():
    config = settings(rfad__kernel_precision="float64")
    with pytest.raises(UserError, match="float64 needs"):
        loop.distill(config, data())


@pytest.mark.parametrize(("keep", "chosen"), [("best", 5), ("last", 7)])
def test_the_last_coreset_within_a_standard_error_is_kept(keep, chosen):
    """Accuracy, error and loss of each step; the kept ones are marked."""
    scores = [
        (0.50, 0.05, 1.0, True),
        (0.46, 0.05, 2.0, True),  # within an error of the highest
        (0.44, 0.05, 2.0, False),
        (0.60, 0.05, 3.0, True),
        (0.54, 0.05, 1.0, False),
        (0.56, 0.05, 1.0, True),
        (0.54, 0.05, 1.0, False),  # the highest counts, not the kept one
        (0.60, 0.05, math.nan, False),
    ]
    arrays = lambda step: CoresetArrays(*(jnp.full((1,), step, jnp.float32),) * 3)
    method = Method(lambda key, start: None, None, None)
    state = loop._first_state(method, jax.random.key(0), arrays(-1))
    for step, (accuracy, error, loss, is_kept) in enumerate(scores):
        method = Method(None, None, lambda _, step=step: arrays(step))
        found = ridge.Score(*map(jnp.float32, (accuracy, error, loss)))
        row = {"step": step}
        state = loop._validate(method, lambda _, f=found: f, keep, state, row)
        assert row.get("best", False) is (is_kept or keep == "last")
    assert int(state.best_step) == int(state.best.images[0]) == chosen
