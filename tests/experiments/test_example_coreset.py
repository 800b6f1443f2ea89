"""The example coreset of the package."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

import audiodd_jax
from audiodd_jax.commands import main
from audiodd_jax.coreset import file as coreset_file

FILE = Path(coreset_file.__file__).with_name("example_coreset.npz")


def test_it_is_small_and_names_its_recordings():
    coreset = audiodd_jax.load_coreset("example")
    assert FILE.stat().st_size < 300_000
    assert coreset.unpack().images.shape == (520, 32, 64, 1)
    assert len(coreset.class_names) == 40
    assert coreset.metadata["licence"].startswith("CC BY 4.0, Abdulkader Ghandoura")
    assert coreset.metadata["dataset"] == "arabic_speech_commands"


def test_its_views_are_always_the_same():
    images, labels = audiodd_jax.load_coreset("example").views()
    assert images.shape == (4160, 32, 64, 1)
    assert labels.shape == (4160, 40)
    np.testing.assert_allclose(labels.sum(1), 1, atol=5e-3)
    again = audiodd_jax.load_coreset("example").views().images
    assert hashlib.sha256(images).digest() == hashlib.sha256(again).digest()


def test_a_file_of_that_name_takes_precedence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("example").write_text("not a coreset")
    with pytest.raises(audiodd_jax.UserError, match="example is not a coreset"):
        audiodd_jax.load_coreset("example")


def test_a_folder_of_that_name_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("example").mkdir()
    assert len(audiodd_jax.load_coreset("example").class_names) == 40


@pytest.mark.slow
@pytest.mark.optimized
def test_it_teaches_forty_keywords(real_audio, capsys):
    """Test speakers are not in the training split; chance is 2.5 %."""
    data = real_audio("arabic_speech_commands")
    place = f"--data_dir={data}"
    main.main(["evaluate", "--coreset=example", place, "--num_seeds=1"])
    (accuracy,) = re.findall(r"test accuracy +([\d.]+)", capsys.readouterr().out)
    assert float(accuracy) > 45
