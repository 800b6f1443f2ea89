"""What networks learn from real digits, at the sizes that users run."""

import pytest

import audiodd_jax
from audiodd_jax.commands import evaluate

pytestmark = pytest.mark.nightly


def test_networks_on_a_coreset_and_on_real_digits(real_audio, tmp_path):
    """One seed of each, and a small teacher; RESULTS.md has more."""
    config = audiodd_jax.for_dataset(
        "spoken_digit",
        "transfer",
        data__data_dir=str(real_audio("fsdd")),
        teacher__networks=1,
        teacher__steps=300,
    )
    coreset = audiodd_jax.distill(config, tmp_path / "run").coreset
    score = lambda protocol, against: [
        row.scores.mean
        for row in evaluate.compare(
            coreset, [protocol], against, config, {"training.seeds": 1}
        )
    ]
    distilled, chosen, everything, labelled = score("convnet", ["random", "all"])
    assert distilled >= 0.92
    assert everything >= 0.98
    assert distilled > chosen
    assert labelled > chosen  # the same number of random clips, the teacher's labels
    assert score("resnet18", [])[0] >= 0.85


def test_active_learning_on_real_digits(real_audio, tmp_path):
    """One function and one seed; BUILD_NOTES.md has all functions and three."""
    config = audiodd_jax.for_active(
        audiodd_jax.for_dataset("spoken_digit", data__data_dir=str(real_audio("fsdd"))),
        "convnet",
        active__acquisition="margin",
        active__budgets=("10/class", "20%"),
    )
    result = audiodd_jax.active(config, tmp_path / "run")
    start, few, many = (row["test_accuracy"] for row in result["rounds"])
    assert start < few < many
    assert few >= 0.75
    assert many >= 0.95
