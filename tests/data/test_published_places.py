"""Where published datasets are found, and whether they are complete and undamaged."""

import shutil

import checks
import numpy as np
import published
import pytest
from published import read, source

from audiodd_jax.config import presets
from audiodd_jax.data.published import esc50, speech_commands, urbansound8k
from audiodd_jax.errors import UserError


def test_missing_recordings_are_named(urban, tmp_path):
    folder = tmp_path / "UrbanSound8K"
    shutil.copytree(urban, folder)
    gone = sorted((folder / "audio" / "fold4").glob("*.wav"))[3]
    gone.unlink()
    with pytest.raises(UserError) as refused:
        source("urbansound8k", folder, tmp_path / "cache").read()
    for words in (
        f"1 recording is missing, {gone.name}",
        "air_conditioner in fold1: 2 of 100 clips",
        "more counts",
        "--allow_partial",
    ):
        assert words in str(refused.value)
    assert len(read("urbansound8k", folder, tmp_path / "cache")) == 199


def test_a_list_names_a_clip_that_is_missing(commands, tmp_path):
    folder = tmp_path / "speech_commands"
    shutil.copytree(commands, folder)
    name = (folder / "testing_list.txt").read_text().split()[0]
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"1 recording is missing, {name}"):
        source("speech_commands", folder, tmp_path / "cache").read()
    (folder / "validation_list.txt").unlink()
    with pytest.raises(UserError, match=r"validation_list\.txt is missing"):
        read("speech_commands", folder, tmp_path / "cache")
    (folder / "testing_list.txt").unlink()
    with pytest.raises(
        UserError, match=r"holds no testing_list\.txt; it should hold a folder per word"
    ):
        read("speech_commands", folder, tmp_path / "cache")


def test_a_recording_that_cannot_be_decoded(environment, tmp_path):
    folder = tmp_path / "ESC-50-master"
    shutil.copytree(environment, folder)
    bad = sorted((folder / "audio").iterdir())[7]
    bad.write_bytes(bad.read_bytes()[:30])
    small = {"features__n_mels": 8, "features__frames": 8, "data__allow_partial": True}
    config = presets.for_dataset("esc50", data__data_dir=str(folder), **small)
    with pytest.raises(UserError, match=f"1 recording cannot be used: .*{bad.name}"):
        checks.prepare(config, tmp_path / "cache")
    config.data.skip_bad_files = True
    found = checks.prepare(config, tmp_path / "cache")
    assert len(found.names) == 499
    assert bad.name not in found.names


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda text: text.replace("fold,", "pile,", 1),
            "lacks the column fold; it has filename, pile",
        ),
        (
            lambda text: text.replace(",1,", ",one,", 1),
            "line 2: the fold is a number up to 9999, not 'one'",
        ),
        (lambda text: text.replace(",1,", ",7,", 1), "has the unknown 'fold7'"),
        (
            lambda text: text.replace(",dog,", ",wolf,", 1),
            "has the unknown class 'wolf'",
        ),
        (lambda text: text.replace(",dog,", ",,", 1), "line 2 lacks its category"),
        (lambda text: text + text.splitlines()[1] + "\n", "is listed twice"),
        (lambda text: "\x00\xff" + text, "is not a CSV|lacks the column"),
    ],
)
def test_a_damaged_table_is_named(environment, tmp_path, damage, words):
    folder = tmp_path / "ESC-50-master"
    (folder / "meta").mkdir(parents=True)
    (folder / "audio").mkdir()
    text = (environment / esc50.TABLES[0]).read_text()
    (folder / esc50.TABLES[0]).write_bytes(damage(text).encode("latin-1"))
    with pytest.raises(UserError, match=words):
        read("esc50", folder, tmp_path / "cache")


def test_unreadable_noise_is_named_or_skipped(commands, tmp_path):
    folder = tmp_path / "speech_commands"
    shutil.copytree(commands, folder)
    (folder / speech_commands.NOISE_FOLDER / "pink_noise.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"1 recording cannot be used: .*pink_noise"):
        read("speech_commands", folder, tmp_path).load_noise()
    found = read("speech_commands", folder, tmp_path, skip_bad_files=True)
    assert len(found.load_noise()) == 5


def test_data_dir_may_be_near_the_dataset(environment, tmp_path, monkeypatch):
    """The folder above, a folder inside, the archive, or a folder with the archive."""
    cache = tmp_path / "cache"
    archive = tmp_path / "given" / "ESC-50-master.zip"
    archive.parent.mkdir()
    published.pack_zip(environment, archive, "ESC-50-master")
    expected = read("esc10", environment, cache).names
    for place in (environment.parent, environment / "meta", archive, archive.parent):
        assert read("esc10", place, cache).names == expected
    with pytest.raises(UserError, match="is not a folder; it should hold audio"):
        read("esc10", tmp_path / "nowhere", cache)
    with pytest.raises(UserError, match=r"holds no meta/esc50\.csv; it should hold"):
        read("esc10", tmp_path, cache)
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(UserError, match="is not an archive; it should be audio"):
        read("esc10", tmp_path / "text", cache)


def test_layouts_of_mirrors(commands, urban, environment, tmp_path):
    """Tables at the top, folds without a folder above, folders around all of it."""
    of_urban = tmp_path / "urban"
    shutil.copytree(urban / "audio", of_urban)
    shutil.copy(urban / urbansound8k.TABLES[0], of_urban / "UrbanSound8K.csv")
    of_esc = tmp_path / "esc"
    shutil.copytree(environment / "audio", of_esc / "audio" / "audio")
    shutil.copy(environment / esc50.TABLES[0], of_esc / "esc50.csv")
    of_commands = tmp_path / "torch" / "SpeechCommands"
    shutil.copytree(commands, of_commands / "speech_commands_v0.02")
    for name, ours, theirs in (
        ("urbansound8k", urban, of_urban),
        ("esc50", environment, of_esc),
        ("speech_commands", commands, of_commands.parent),
    ):
        options = {"variant": "v0.02"} if name == "speech_commands" else {}
        expected, found = (
            read(name, place, tmp_path / "cache", **options) for place in (ours, theirs)
        )
        assert found.names == expected.names
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.folds, expected.folds)


def test_unused_files_of_a_published_dataset_are_counted(environment, tmp_path):
    folder = tmp_path / "ESC-50-master"
    shutil.copytree(environment, folder)
    extra = next((folder / "audio").glob("*.wav"))
    shutil.copy(extra, folder / "audio" / "my-own-recording.wav")
    (folder / "audio" / "notes.txt").write_text("notes")
    found = read("esc50", folder, tmp_path / "cache")
    counts = {reason: count for reason, count, _ in found.left_out}
    assert counts["recording that is not part of this dataset"] == 1
    assert counts["format .txt"] >= 1


def test_urbansound8k_must_be_requested(urban, tmp_path, monkeypatch):
    with pytest.raises(UserError) as told:
        source("urbansound8k", "", tmp_path)
    place = tmp_path / "downloads" / "UrbanSound8K.tar.gz"
    for words in ("fill in the form at https://", str(place.parent), place.name):
        assert words in str(told.value)
    place.parent.mkdir()
    published.pack_tar(urban, place, "UrbanSound8K")
    with pytest.raises(UserError, match="not the published archive"):
        source("urbansound8k", "", tmp_path).read()
    assert not (tmp_path / "unpacked").exists()
    # From here on it passes as the published archive.
    monkeypatch.setattr(urbansound8k, "CHECKSUM", published.checksum(place, "md5"))
    counts = dict.fromkeys(urbansound8k.CLASS_NAMES, (2,) * 10)
    monkeypatch.setattr(urbansound8k, "PUBLISHED_CLIPS", counts)
    found = source("urbansound8k", "", tmp_path).read()
    assert len(found) == 200
    assert place.exists()
    assert len(list((tmp_path / "unpacked").iterdir())) == 1


def test_half_unpacked_archives_are_never_read(environment, tmp_path, monkeypatch):
    """A process that died while it unpacked leaves nothing that the next one reads."""
    archive = published.pack_zip(environment, tmp_path / "a.zip", "ESC-50-master")
    real, calls = shutil.copyfileobj, []

    def die_late(source, target, *args):
        calls.append(0)
        if len(calls) > 60:
            raise KeyboardInterrupt
        return real(source, target, *args)

    monkeypatch.setattr(shutil, "copyfileobj", die_late)
    with pytest.raises(KeyboardInterrupt):
        read("esc10", archive, tmp_path)
    monkeypatch.undo()
    assert not list((tmp_path / "unpacked").iterdir())
    expected = read("esc10", archive, tmp_path).names
    [unpacked] = (tmp_path / "unpacked").iterdir()
    # A killed process cannot even clean up: its scratch folder remains.
    unpacked.rename(unpacked.with_name(f"{unpacked.name}.part-killed"))
    assert read("esc10", archive, tmp_path).names == expected
    assert list((tmp_path / "unpacked").iterdir()) == [unpacked]


def test_a_refused_archive_is_not_read_after_it_was_allowed(
    environment, tmp_path, monkeypatch
):
    monkeypatch.setattr(urbansound8k, "CHECKSUM", "md5:0")
    folder = tmp_path / "UrbanSound8K"
    published.write_urbansound8k(folder)
    archive = published.pack_tar(folder, tmp_path / "a.tar.gz", "UrbanSound8K")
    assert len(read("urbansound8k", archive, tmp_path)) == 200
    with pytest.raises(UserError, match="is not the published archive"):
        source("urbansound8k", archive, tmp_path).read()
