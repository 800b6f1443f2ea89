"""Accuracy for the speech embedding on spoken digits, one clip or spectrogram each."""

import dataclasses
import statistics

import pytest

import audiodd_jax
from audiodd_jax.commands.evaluate import compare
from audiodd_jax.errors import UserError
from audiodd_jax.networks import speech_embedding

pytestmark = [pytest.mark.slow, pytest.mark.nightly]


def test_distilled_spectrograms_beat_random_and_selected_clips(real_audio, tmp_path):
    pytest.importorskip("onnx")
    try:
        speech_embedding.file()
    except UserError as error:
        pytest.skip(str(error))
    found = {}
    cases = [("random", seed) for seed in range(3)]
    cases += [(method, 0) for method in ("herding", "medoids", "rfad", "lgm")]
    for method, seed in cases:
        config = audiodd_jax.for_dataset(
            "spoken_digit",
            data_dir=str(real_audio("fsdd")),
            encoder="speech_embedding",
            method=method,
            samples_per_class=1,
            steps=100,
            seed=seed,
        )
        run = audiodd_jax.distill(config, tmp_path / f"{method}{seed}")
        rows = compare(run.coreset, ["krr", "knn"], config=dataclasses.replace(config))
        scores = {row.protocol: row.scores.mean for row in rows}
        scores["validation"] = run.result["validation_accuracy"]
        found.setdefault(method, []).append(scores)
        print(method, seed, scores, run.result["wall_seconds"], flush=True)
    mean = lambda method: statistics.fmean(one["krr"] for one in found[method])
    assert mean("rfad") > mean("random") + 0.08
    assert mean("rfad") > max(mean("herding"), mean("medoids"))
