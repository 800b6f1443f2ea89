"""Several runs as one program: the numbers of each alone, cut, continued, failing."""

import dataclasses

import jax
import numpy as np
import pytest

import audiodd_jax
from audiodd_jax import settings
from audiodd_jax.distillation import loop, together
from audiodd_jax.runtime import runs
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.runtime.interrupt import Interrupted

SMALL = {
    "features.n_mels": 16,
    "features.frames": 16,
    "network.width": 4,
    "loop.batch_size": 32,
    "loop.steps": 8,
    "loop.log_every": 2,
    "loop.eval_every": 4,
    "loop.checkpoint_every": 4,
    "evaluation.networks": 2,
    "evaluation.width": 8,
    "coreset.samples_per_class": 1,
}
VARIED = [
    {},
    {"seed": 1},
    {"optimizer.learning_rate": 0.003},
    {"rfad.regularizer": 0.1, "seed": 2},
]


def config_of(**changes):
    return settings.replace(audiodd_jax.for_dataset("tones"), SMALL | changes)


@pytest.fixture(scope="module")
def data():
    return audiodd_jax.prepare(config_of())


@pytest.fixture(scope="module")
def alone(data):
    """Each run by itself, on one device."""
    from audiodd_jax.runtime import devices

    mesh = devices.make_mesh(devices=jax.local_devices()[:1])
    return [loop.distill(config_of(**v), data, mesh=mesh) for v in VARIED]


def folder(path, config):
    kept = settings.record(config, settings.DISTILLATION)
    return runs.RunDirectory(path, kept)


def close(one, other):
    """Of images that are steps of an optimiser away from the same start."""
    distance = lambda a, b: np.linalg.norm(a - b) / np.linalg.norm(b)
    assert distance(one.best.images, other.best.images) < 1e-3
    assert distance(one.best.labels, other.best.labels) < 1e-3
    np.testing.assert_array_equal(one.start.images, other.start.images)
    assert (one.steps, one.best_step) == (other.steps, other.best_step)
    for ours, theirs in zip(one.history, other.history, strict=True):
        assert ours.keys() == theirs.keys()
        np.testing.assert_allclose(
            [ours[k] for k in ours if k in ("step", "loss")],
            [theirs[k] for k in ours if k in ("step", "loss")],
            rtol=1e-3,
        )


def test_each_run_is_what_it_is_alone(data, alone):
    found = together.distill(
        [config_of(**v) for v in VARIED], data, [None] * len(VARIED)
    )
    for one, other in zip(found, alone, strict=True):
        close(one, other)
    # And they are four different ones.
    assert np.abs(alone[0].best.images - alone[2].best.images).max() > 1e-2
    assert np.abs(alone[0].best.images - alone[1].best.images).max() > 1e-1


def test_cut_and_continued_together_and_alone(data, alone, tmp_path, monkeypatch):
    """A signal stops all at once; one goes on alone, the rest together."""
    configs = [config_of(**v) for v in VARIED]
    paths = [tmp_path / str(i) for i in range(len(configs))]
    signals = iter([0] * 5 + [15] * 100)
    with monkeypatch.context() as patch:
        from contextlib import nullcontext

        patch.setattr(
            together, "noted_signals", lambda: nullcontext(lambda: next(signals))
        )
        with pytest.raises(Interrupted):
            with_directories(configs, paths, data)
    steps = [runs.read_json(path / "config.json")["seed"] for path in paths]
    assert steps == [0, 1, 0, 2]
    with folder(paths[0], configs[0]) as run:
        close(loop.distill(configs[0], data, run), alone[0])
    found = with_directories(configs[1:], paths[1:], data)
    for one, other in zip(found, alone[1:], strict=True):
        close(one, other)


def with_directories(configs, paths, data):
    from contextlib import ExitStack

    with ExitStack() as stack:
        opened = [
            stack.enter_context(folder(path, config))
            for path, config in zip(paths, configs, strict=True)
        ]
        return together.distill(configs, data, opened)


def test_one_that_fails_leaves_the_others(data, alone):
    broken = config_of(**{"optimizer.learning_rate": float("nan")})
    first, second = together.distill([broken, config_of()], data, [None, None])
    assert isinstance(first, UserError)
    assert "not a finite number at step 2" in str(first)
    close(second, alone[0])


def test_what_cannot_be_one_program_is_refused(data):
    other = config_of(**{"network.width": 8})
    with pytest.raises(
        UserError, match=r"differ in seed, optimizer\.learning_rate, rfad"
    ):
        together.distill([config_of(), other], data, [None, None])
    with pytest.raises(UserError, match="are of rfad"):
        together.distill([dataclasses.replace(config_of(), method="dm")], data, [None])
