"""Coresets of tags as folders for other libraries, and back."""

import checks
import numpy as np
import pytest
from coresets import labelled

from audiodd_jax.config import DataConfig, ModelConfig, TrainingConfig
from audiodd_jax.coreset import audio_folder
from audiodd_jax.errors import UserError
from audiodd_jax.report.exports import hub, network_folder
from audiodd_jax.report.exports.network_folder import Recipe

# Centred by a half: a and b, a alone, none.
LABELS = np.float32([[0.4, 0.3], [0.5, -0.5], [-0.2, -0.1]] * 2)


@pytest.fixture(scope="module")
def coreset():
    found = labelled(labels=LABELS)
    found.metadata["has_tags"] = True
    return found


def test_labels_in_words(coreset):
    assert [coreset.in_words(label) for label in LABELS[:3]] == ["a;b", "a", ""]
    assert labelled(labels=LABELS).in_words(LABELS[2]) == "b"


def test_an_audio_folder_is_read_as_tags_again(coreset, tmp_path):
    audio_folder.write(np.zeros((6, 4000), np.float32), coreset, tmp_path / "out")
    config = DataConfig("folder", data_dir=str(tmp_path / "out"))
    source = checks.open_source(config, tmp_path)
    found = source.read()
    assert source.has_tags
    order = np.argsort(found.names, kind="stable")  # a/0000 to a/0003, b/0000, b/0001
    expected = [[1, 1], [1, 0], [1, 1], [1, 0], [0, 0], [0, 0]]
    assert found.labels[order].tolist() == expected


def test_parquet_has_the_list_of_tags(coreset, tmp_path, load):
    hub.write(tmp_path / "out", coreset, np.zeros((6, 4000), np.float32))
    found = load(tmp_path / "out" / "data")
    assert found.remove_columns("audio")["label"][:3] == [[0, 1], [0], []]
    config = DataConfig("folder", data_dir=str(tmp_path / "out" / "data"))
    again = checks.open_source(config, tmp_path).read()
    assert again.class_names == ("a", "b")
    assert again.labels.tolist() == [[1, 1], [1, 0], [0, 0]] * 2
    own = hub.header(coreset, is_parquet=True)["dataset_info"][0]["features"][1]
    assert own["sequence"]["class_label"]["names"] == {"0": "a", "1": "b"}


def test_the_script_for_pytorch_is_for_classes(coreset):
    with pytest.raises(UserError, match="export a coreset of tags with --format=numpy"):
        network_folder.check(Recipe(ModelConfig(), TrainingConfig()), has_tags=True)
