"""A labelling session as a dataset: its labels, splits and validation part."""

import json

import numpy as np
import pytest

from audiodd_jax.config import DataConfig, FeaturesConfig, SessionConfig
from audiodd_jax.data import answers, datasets, sessions
from audiodd_jax.data.recordings import TEST, TRAIN, UNLABELLED, Clip
from audiodd_jax.errors import UserError
from audiodd_jax.features import cache, dataset

SMALL = FeaturesConfig(n_mels=8, frames=8, sample_rate=8000, clip_seconds=0.5)


@pytest.fixture
def session(sound_folder, tmp_path):
    """A session on two folders of sounds, with one answer per recording but two."""
    folder = tmp_path / "session"
    folder.mkdir()
    settings = {"sounds": str(sound_folder), "validation": 0.3}
    (folder / "config.json").write_text(json.dumps({"session": settings}))
    journal = answers.Journal(folder / datasets.JOURNAL)
    names = [c.name for c in sessions.pool(SessionConfig(**settings), DataConfig())]
    for name in names[2:]:
        journal.append({"clip": name, "labels": [name.split("/")[0]]})
    return folder


def test_answers_are_labels_and_the_validation_part_is_the_test_split(session):
    config = DataConfig(name="folder", data_dir=str(session))
    stored = cache.prepare(config, SMALL)
    assert stored.class_names == ("high", "low")
    splits = dict(zip(map(str, stored.names), map(str, stored.splits), strict=True))
    assert sorted(set(splits.values())) == [TEST, TRAIN, UNLABELLED]
    assert list(splits.values()).count(UNLABELLED) == 2
    for name, label, split in zip(
        stored.names, stored.labels, stored.splits, strict=True
    ):
        if split != UNLABELLED:
            assert stored.class_names[label] == name.split("/")[0]
        if split == TEST:
            assert sessions.held_out(Clip(None, (), str(name)), 0.3) < 1
    config.validation_fraction = 0.0
    count = list(splits.values()).count
    for is_all, size in ((False, count(TRAIN)), (True, count(TRAIN) + 2)):
        data = dataset.load(config, SMALL, with_unlabelled=is_all)
        assert len(data.test.labels) == count(TEST)
        assert len(data.train.labels) == size


def test_another_answer_changes_labels_and_computes_no_feature(session):
    config = DataConfig(name="folder", data_dir=str(session))
    before = cache.prepare(config, SMALL)
    journal = answers.Journal(session / datasets.JOURNAL)
    left = [n for n in map(str, before.names) if n not in journal.labelled]
    journal.append({"clip": left[0], "labels": ["new"]})
    after = cache.prepare(config, SMALL)
    assert after.path == before.path
    assert after.class_names == ("high", "low", "new")
    assert (after.splits == UNLABELLED).sum() == 1


def test_a_class_that_was_taken_back_is_none(session):
    journal = answers.Journal(session / datasets.JOURNAL)
    journal.append({"clip": "low/00.wav", "labels": ["hihg"]})
    journal.append({"undo": "low/00.wav"})
    config = DataConfig(name="folder", data_dir=str(session))
    assert cache.prepare(config, SMALL).class_names == ("high", "low")


def test_the_validation_part_is_a_share_that_new_recordings_do_not_change():
    clips = [Clip(None, (), f"{i}.wav") for i in range(4000)]
    places = np.array([sessions.held_out(clip, 0.2) for clip in clips])
    assert (places < 1).mean() == pytest.approx(0.2, abs=0.02)
    assert all(sessions.held_out(clip, 0.0) >= 1 for clip in clips[:100])
    same = [sessions.held_out(clip._replace(group="one"), 0.2) for clip in clips[:9]]
    assert len(set(same)) == 1


def test_known_recordings_join_the_pool_with_their_labels(sound_folder, tmp_path):
    unlabelled = tmp_path / "unlabelled"
    unlabelled.mkdir()
    first = next((sound_folder / "low").iterdir())
    (unlabelled / "x.wav").write_bytes(first.read_bytes())
    settings = SessionConfig(sounds=str(unlabelled), known=str(sound_folder))
    clips = sessions.pool(settings, DataConfig())
    assert [clip.labels for clip in clips].count(("low",)) == 12
    assert clips[0].name == "x.wav"
    # A copy of a known recording is in one group with it.
    assert clips[0].group
    assert clips[0].group in [clip.group for clip in clips[1:]]


def test_what_is_wrong_with_a_folder_is_said(tmp_path):
    with pytest.raises(UserError, match="no folder of sounds"):
        sessions.pool(SessionConfig(sounds=str(tmp_path / "nowhere")), DataConfig())
    with pytest.raises(UserError, match="holds no sound file to label"):
        sessions.pool(SessionConfig(sounds=str(tmp_path)), DataConfig())
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="not a session"):
        sessions.settings_of(tmp_path)
