"""Small coresets that tests make by hand."""

import dataclasses

import numpy as np

from audiodd_jax.config import FeaturesConfig, ViewsConfig
from audiodd_jax.coreset import file as coreset_file
from audiodd_jax.kernels import ridge

_solved = ridge.solved


def images(count=6):
    rng = np.random.default_rng(0)
    return rng.standard_normal((count, 8, 16, 1)).astype(np.float32)


def labelled(count=3, factor=1, **changes):
    """A coreset of two classes whose views have labels."""
    rng = np.random.default_rng(1)
    first = rng.uniform(size=(max(1, count) * 6 * factor, 1))
    features = FeaturesConfig(sample_rate=8000, n_mels=8, frames=16, clip_seconds=0.5)
    metadata = {
        "format": coreset_file.FORMAT,
        "audiodd_jax": "0.0.0",
        "dataset": "tones",
        "dataset_version": "1.0.0",
        "licence": "Apache-2.0 (generated)",
        "method": "random",
        "features": dataclasses.asdict(features),
        "normalization": {"mean": [-30.0] * 8, "std": [12.0] * 8},
        "settings": {"coreset": {"factor": factor}},
        "views": {
            "count": count,
            "seed": 7,
            "settings": dataclasses.asdict(ViewsConfig()),
        },
    }
    own = {
        "images": images(),
        "labels": np.tile(np.float32([[0.5, -0.5]]), (6, 1)),
        "class_names": ("a", "b"),
        "metadata": metadata,
        "teacher_labels": np.hstack([first, 1 - first]).astype(np.float16),
    }
    return coreset_file.Coreset(**{**own, **changes})


def by_one_network(images, labels, scoring, seeds):
    """Replaces ``ridge.solved`` where a large coreset predicts: one seed alone."""
    return _solved(images, labels, scoring._replace(num_networks=1), seeds[:1])
