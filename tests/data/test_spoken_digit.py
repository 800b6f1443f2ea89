import checks
import numpy as np
import pytest
import soundfile
from published import pack_tar

from audiodd_jax.config import DataConfig
from audiodd_jax.data import audio, download
from audiodd_jax.data.published import spoken_digit
from audiodd_jax.errors import UserError


def read(data_dir, cache_dir, allow_partial=True, **changes):
    config = DataConfig(
        name="spoken_digit",
        data_dir=str(data_dir),
        allow_partial=allow_partial,
        **changes,
    )
    return checks.open_source(config, cache_dir).read()


@pytest.fixture
def checkout(tmp_path):
    """Two speakers, digits 0-9, takes 0-6, as published."""
    folder = tmp_path / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for digit in range(10):
        for speaker in ("ann", "bob"):
            for take in range(7):
                wave = 0.3 * rng.standard_normal(rng.integers(900, 2000))
                name = f"{digit}_{speaker}_{take}.wav"
                soundfile.write(folder / name, np.clip(wave, -1, 1), 8000)
    return folder.parent


def test_a_checkout(checkout, tmp_path):
    found = read(checkout, tmp_path / "cache")
    assert len(found) == 140
    assert int((found.splits == "test").sum()) == 100  # takes 0-4
    for index in (0, 50, 139):
        name = found.names[index]
        digit, _, take = name.removesuffix(".wav").split("_")
        assert found.class_names[found.labels[index]] == digit
        assert (found.splits[index] == "test") == (int(take) < 5)
        exact, _ = audio.decode(checkout / "recordings" / name)
        np.testing.assert_array_equal(found.load(index)[0], exact)


def test_data_dir_may_be_the_folder_of_recordings(checkout, tmp_path):
    assert len(read(checkout / "recordings", tmp_path / "cache")) == 140


def test_bad_checkouts_are_named(checkout, tmp_path):
    with pytest.raises(UserError, match="is not a folder; it should hold recordings"):
        read(tmp_path / "nowhere", tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no recordings"):
        read(tmp_path / "empty", tmp_path / "cache")
    bad = checkout / "recordings" / "3_bob_2.wav"
    bad.write_bytes(b"")
    found = read(checkout, tmp_path / "cache")
    [index] = found.read_headers().bad
    assert found.names[index] == bad.name
    bad.rename(checkout / "recordings" / "three.wav")
    with pytest.raises(UserError, match=r"three\.wav is not named"):
        read(checkout, tmp_path / "cache")


def test_an_incomplete_checkout_needs_allow_partial(checkout, tmp_path):
    with pytest.raises(UserError, match="0 in test: 10 of 30 clips; 0 in train: 4 of"):
        read(checkout, tmp_path / "cache", allow_partial=False)


def test_without_a_checkout_it_is_downloaded_or_advice_is_given(tmp_path, monkeypatch):
    def refuse(url, *_):
        raise UserError(f"{url} could not be downloaded (no network)")

    monkeypatch.setattr(download, "fetch", refuse)
    with pytest.raises(UserError, match="or pass --data_dir with a checkout of"):
        read("", tmp_path / "cache")


def test_the_published_archive(checkout, tmp_path, monkeypatch):
    packed = tmp_path / "packed.tar.gz"
    pack_tar(checkout, packed, "free-spoken-digit-dataset-1.0.10")
    monkeypatch.setattr(download, "fetch", lambda url, *_: packed)
    with pytest.raises(
        UserError, match="does not match Free Spoken Digit Dataset as published"
    ):
        read("", tmp_path / "cache", allow_partial=False)
    published = {
        (digit, part): clips
        for digit in spoken_digit.CLASS_NAMES
        for part, clips in (("test", 10), ("train", 4))
    }
    monkeypatch.setattr(spoken_digit, "PUBLISHED", published)
    assert len(read("", tmp_path / "cache", allow_partial=False)) == 140
    # It was unpacked once.
    assert len(list((tmp_path / "cache" / "unpacked").iterdir())) == 1


def test_the_real_recordings(real_audio, tmp_path):
    found = read(real_audio("fsdd"), tmp_path / "cache", allow_partial=False)
    assert len(found) == 3000
    for split, per_class in (("train", 270), ("test", 30)):
        counts = np.bincount(found.labels[found.splits == split])
        np.testing.assert_array_equal(counts, per_class)
