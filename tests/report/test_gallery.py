"""Neighbours by hand, pictures and sounds that read back."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from coresets import labelled
from matplotlib import image

from audiodd_jax.coreset import audio_folder
from audiodd_jax.features.clips import Clips
from audiodd_jax.report import gallery


def test_the_nearest_clip_by_hand(monkeypatch):
    """In chunks of two, so that the nearest clip is not in the first chunk."""
    monkeypatch.setattr(gallery, "_COMPARED_AT_ONCE", 2)
    clips = np.zeros((5, 2, 2, 1), np.float32)
    clips[:, 0, 0, 0] = [0, 1, 2, 3, 4]
    own = np.zeros((2, 2, 2, 1), np.float32)
    own[:, 0, 0, 0] = [2.9, 0.1]
    train = Clips(jnp.asarray(clips), jnp.array([0, 0, 1, 1, 2]))
    rows, distances = gallery.nearest(jnp.asarray(own), train)
    assert rows.tolist() == [3, 0]
    assert np.asarray(train.labels)[rows].tolist() == [1, 0]
    # Of four bins one differs by 0.1: a root mean square of 0.05.
    np.testing.assert_allclose(distances, [0.05, 0.05], rtol=1e-4)


def test_low_frequencies_are_at_the_bottom():
    log_mel = np.full((4, 6), -80.0, np.float32)
    log_mel[0] = 0.0
    pixels = image.imread(io.BytesIO(gallery.picture(log_mel, (-80.0, 0.0))))
    assert pixels.shape[:2] == (4, 6)
    assert pixels[-1, :, :3].sum() > 10 * pixels[:-1, :, :3].sum()


@pytest.mark.parametrize(
    ("rate", "media_type"),
    [(8000, "audio/mpeg"), (44100, "audio/mpeg"), (7000, "audio/wav")],
)
def test_a_sound_reads_back(rate, media_type):
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    content, found = gallery.sound(wave, rate)
    assert found == media_type
    back, its_rate = soundfile.read(io.BytesIO(content))
    assert its_rate == rate
    spectrum = np.abs(np.fft.rfft(back[:rate]))
    assert abs(np.argmax(spectrum) * rate / rate - 440) <= 1


def test_names_of_files_are_safe_and_numbered_within_a_class():
    found = audio_folder.files(np.array([0, 1, 0, 2]), ("a/b", "..", "ü"))
    assert found == ["a_b/0000.wav", "_/0000.wav", "a_b/0001.wav", "ü/0000.wav"]


def test_a_card_is_named_by_its_class_next_to_the_values_of_its_label():
    labels = np.float32([[0.5, -0.5], [0.4, -0.2]])
    heard = gallery.Sounds(
        np.zeros((2, 8, 16), np.float32), np.zeros((2, 800), np.float32), np.zeros(2)
    )
    names = ["a/0000.wav", "b/0000.wav"]
    found = gallery._cards(heard, ["a", "b"], labels, names, None, labelled())
    assert [sides[0].title for sides in found] == ["a", "b"]
    assert dict(found[1][0].labels) == pytest.approx({"a": 0.9, "b": 0.3})


def test_the_largest_values_of_a_label():
    label = np.array([0.9, 0.3, 0.001, -0.2]) - 0.25
    assert [name for name, _ in gallery.strongest(label, tuple("abcd"))] == ["a", "b"]
