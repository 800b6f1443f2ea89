"""What the engine promises on real recordings, with each dataset's default settings."""

import csv

import pytest

import audiodd_jax

pytestmark = [pytest.mark.slow, pytest.mark.optimized]


def accuracy(tmp_path, name, samples, place=""):
    config = audiodd_jax.for_dataset(
        name, coreset__samples_per_class=samples, data__data_dir=str(place)
    )
    result = audiodd_jax.distill(config, tmp_path / "run").result
    assert result["test_accuracy"] > result["start_test_accuracy"]
    return result["test_accuracy"]


@pytest.mark.parametrize(
    ("samples", "least"), [(1, 0.72), pytest.param(10, 0.94, marks=pytest.mark.nightly)]
)
def test_spoken_digits(real_audio, tmp_path, samples, least):
    assert accuracy(tmp_path, "spoken_digit", samples, real_audio("fsdd")) >= least


@pytest.mark.nightly
def test_environmental_sounds_by_a_table(real_audio, tmp_path):
    folder = real_audio("esc10")
    table = tmp_path / "esc10.csv"
    with (folder / "meta" / "esc50.csv").open() as file, table.open("w") as out:
        writer = csv.writer(out)
        writer.writerow(["path", "label", "fold", "group"])
        for row in csv.DictReader(file):
            path = folder / "audio" / row["filename"]
            writer.writerow([path, row["category"], row["fold"], row["src_file"]])
    assert accuracy(tmp_path, "folder", 5, table) >= 0.72


def test_tones_are_hard_with_one_clip_and_easy_with_all(tmp_path):
    def score(samples):
        config = audiodd_jax.for_dataset(
            "tones",
            method="random",
            coreset__samples_per_class=samples,
            data__validation_fraction=0.0,
            evaluation__seeds=1,
            evaluation__networks=2,
        )
        run = audiodd_jax.distill(config, tmp_path / str(samples))
        return run.result["test_accuracy"]

    assert score(1) < 0.6
    assert score(200) > 0.95
