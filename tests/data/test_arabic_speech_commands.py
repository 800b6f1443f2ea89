"""Arabic Speech Commands: its published layout, counts and lists."""

import checks
import published
import pytest

from audiodd_jax.config import DataConfig
from audiodd_jax.data.published import arabic_speech_commands
from audiodd_jax.errors import UserError


def source(place, cache, **changes):
    config = DataConfig("arabic_speech_commands", data_dir=str(place), **changes)
    return checks.open_source(config, cache)


def test_counts_are_those_of_the_paper():
    assert len(set(arabic_speech_commands.CLASS_NAMES)) == 40
    assert 40 * sum(arabic_speech_commands.CLIPS.values()) == 12_000


@pytest.mark.parametrize("suffix", [".wav", ".ogg"])
def test_arabic_speech_commands_by_the_official_lists(suffix, tmp_path):
    folder = tmp_path / "data"
    published.write_arabic_speech_commands(folder, suffix)
    found = source(folder, tmp_path, allow_partial=True).read()
    assert len(found.names) == 120
    assert found.class_names == arabic_speech_commands.CLASS_NAMES
    assert dict(zip(found.groups, found.splits, strict=True)) == {
        "00000000": "train",
        "00000001": "validation",
        "00000002": "test",
    }
    row = list(found.names).index(f"zoom in/00000001_NO_01{suffix}")
    assert found.class_names[found.labels[row]] == "zoom in"
    assert found.splits[row] == "validation"
    [(noise, rate)] = found.load_noise()
    assert (noise.size, rate) == (48_000, 16_000)


def test_an_incomplete_arabic_speech_commands_is_refused(tmp_path):
    """Both the missing file and the published counts are named."""
    folder = tmp_path / "data"
    published.write_arabic_speech_commands(folder)
    (folder / "dataset" / "yes" / "00000002_NO_01.wav").unlink()
    message = r"1 recording is missing, yes/00000002_NO_01.wav.* 1 of 180 clips"
    with pytest.raises(UserError, match=message):
        source(folder, tmp_path).read()
    text = (folder / "test.csv").read_text()
    (folder / "test.csv").write_text(text + text.splitlines()[1] + "\n")
    with pytest.raises(UserError, match="is listed twice"):
        source(folder, tmp_path, allow_partial=True).read()
