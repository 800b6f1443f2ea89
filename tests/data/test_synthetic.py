import numpy as np

from audiodd_jax.config import DataConfig
from audiodd_jax.data import datasets, synthetic


def read():
    return datasets.open_source(DataConfig(name="tones")).read()


def test_classes_splits_and_waveforms():
    found = read()
    assert found.class_names == synthetic.CLASS_NAMES
    for split, count in (
        ("train", synthetic.TRAIN_CLIPS),
        ("test", synthetic.TEST_CLIPS),
    ):
        assert (np.bincount(found.labels[found.splits == split]) == count).all()
    for index in range(0, len(found), 37):
        waveform, rate = found.load(index)
        assert waveform.shape == (int(synthetic.SECONDS * rate),)
        assert waveform.dtype == np.float32
        assert 0.02 < np.abs(waveform).max() <= 1
        assert np.isfinite(waveform).all()


def test_clips_are_the_same_every_time_and_differ_from_each_other():
    first, again = read(), read()
    np.testing.assert_array_equal(first.load(3)[0], again.load(3)[0])
    assert np.abs(first.load(3)[0] - first.load(4)[0]).max() > 0.01
