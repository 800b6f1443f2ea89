"""What tests of several rooms share: kills, exact gradients, a dataset of clips."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from audiodd_jax.config import FeaturesConfig, fields
from audiodd_jax.data import datasets
from audiodd_jax.features import cache, dataset
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.training import programs


class Killed(BaseException):
    """Stands for a kill that no code can handle."""


@contextlib.contextmanager
def killed_at(step):
    """Kills the run in the block after it has logged ``step``."""
    log = RunDirectory.log

    def log_and_die(self, row):
        log(self, row)
        if row["step"] == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDirectory, "log", log_and_die)
        with pytest.raises(Killed):
            yield


def assert_gradient(value, params):
    """A float64 function's gradient is that of central differences.

    Along three random directions of all parameters.
    """
    found = jax.jit(jax.value_and_grad(value))
    f, grads = lambda p: found(p)[0], found(params)[1]
    rng = np.random.default_rng(1)
    for _ in range(3):
        direction = jax.tree.map(
            lambda x: jnp.asarray(rng.normal(size=x.shape)), params
        )
        shift = lambda h, d=direction: jax.tree.map(lambda x, v: x + h * v, params, d)
        numeric = (f(shift(1e-6)) - f(shift(-1e-6))) / 2e-6
        exact = optax.tree.vdot(grads, direction)
        assert float(numeric) == pytest.approx(float(exact), rel=1e-5)


def prepare(config, cache_dir=None):
    """Features of a configuration's dataset, kept in a cache folder."""
    config = fields.with_cache(config, cache_dir)
    return cache.prepare(config.data, config.features)


def load(config, cache_dir=None, normalization=None):
    """A configuration's dataset, prepared in a cache folder."""
    config = fields.with_cache(config, cache_dir)
    return dataset.load(config.data, config.features, normalization)


def open_source(data, cache_dir):
    """A dataset's recordings, found with a cache folder."""
    return datasets.open_source(dataclasses.replace(data, cache_dir=str(cache_dir)))


def prepared(train, validation, stats, class_names=("low", "middle", "high"), **fields):
    """A dataset of these clips; ``fields`` are others of ``Dataset``."""
    usual = {
        "test": validation,
        "features": FeaturesConfig(),
        "noise": None,
        "fold": 0,
        "is_partial": False,
        "name": "bumps",
        "version": "1",
        "licence": "none",
        "train_bytes": 0,
    }
    return Dataset(
        train=train,
        validation=validation,
        class_names=class_names,
        normalization=stats,
        **{**usual, **fields},
    )


_programs = {}


def shared_programs(config, settings, data, make=programs.make):
    """``programs.make``, once for trainings that differ in clips and seeds alone.

    Tracing is half of what tests of small networks do.
    """
    leaves = jax.tree.leaves((data.validation, data.normalization, data.noise))
    arrays = tuple((np.shape(x), np.asarray(x).tobytes()) for x in leaves)
    key = (repr(config), repr(settings), data.num_classes, arrays)
    if key not in _programs:
        _programs[key] = make(config, settings, data)
    return _programs[key]


def tagged(noise=0.5, height=1.5):
    """Clips with three tags, each a bump at another mel bin; some have none.

    Args:
      noise: its standard deviation.
      height: of the bumps.
    """

    def split(b, seed):
        rng = np.random.default_rng(seed)
        labels = (rng.random((b, 3)) < 0.4).astype(np.int8)
        images = noise * rng.standard_normal((b, 8, 8, 1)).astype(np.float32)
        images[:, 1:7:2] += height * labels[:, :, None, None]
        return Clips(jnp.asarray(images), jnp.asarray(labels))

    stats = Normalization(np.zeros(8, np.float32), np.ones(8, np.float32))
    size, name = FeaturesConfig(n_mels=8, frames=8), "tones_tagged"
    parts = split(60, 0), split(20, 1), stats, ("a", "b", "c")
    return prepared(*parts, test=split(40, 2), features=size, name=name)
