"""Speech Commands, UrbanSound8K and ESC-50 from miniatures in their own layouts."""

import pickle
import shutil

import checks
import numpy as np
import published
import pytest
import soundfile

from audiodd_jax.config import DataConfig, presets
from audiodd_jax.data import audio, splits
from audiodd_jax.data.published import esc50, silence, speech_commands, urbansound8k
from audiodd_jax.errors import UserError

WORDS = ("bed", "down", "go", "left", "no", "right", "stop", "up", "yes", "zero")


def source(name, place, cache, **changes):
    config = DataConfig(name=name, data_dir=str(place), **changes)
    return checks.open_source(config, cache)


def read(name, place, cache, **changes):
    return source(name, place, cache, allow_partial=True, **changes).read()


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands") / "speech_commands_v0.02"
    published.write_speech_commands(folder, [*WORDS, "on", "off", "cat", "tree"])
    return folder


@pytest.fixture(scope="module")
def urban(tmp_path_factory):
    folder = tmp_path_factory.mktemp("urban") / "UrbanSound8K"
    published.write_urbansound8k(folder)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("environment") / "ESC-50-master"
    published.write_esc50(folder, per_fold=2)
    return folder


def test_published_counts_are_those_of_the_papers():
    first, second = speech_commands.WORDS.values()
    assert (len(first), sum(first.values())) == (30, 64_721)
    assert (len(second), sum(second.values())) == (35, 105_829)
    for version, words in speech_commands.WORDS.items():
        parts = speech_commands.PART_CLIPS[version]
        assert sum(parts.values()) == sum(words.values())
    folds = np.array(list(urbansound8k.PUBLISHED_CLIPS.values()))
    assert folds.sum() == 8732
    assert folds[:, :9].sum() == 7895
    assert folds.sum(axis=0).tolist() == [
        *(873, 888, 925, 990, 936, 823, 838, 806, 816, 837)
    ]
    assert len(set(esc50.CLASS_NAMES)) == 50
    assert set(esc50.ESC10_NAMES) < set(esc50.CLASS_NAMES)


def test_speech_commands_by_the_official_lists(commands, tmp_path):
    found = read("speech_commands", commands, tmp_path)
    assert found.class_names == tuple(sorted([*WORDS, "on", "off", "cat", "tree"]))
    lists = {
        part: set((commands / file).read_text().split())
        for file, part in speech_commands.LISTS.items()
    }
    for name, label, part in zip(found.names, found.labels, found.splits, strict=True):
        assert found.class_names[label] == name.split("/")[0]
        told = [p for p, names in lists.items() if name in names]
        assert part == (told[0] if told else "train")
    assert not any("_background_noise_" in name for name in found.names)
    # No speaker is on both sides, and background noise belongs to no class.
    speakers = [set(found.groups[found.splits == p]) for p in ("train", "test")]
    assert not speakers[0] & speakers[1]
    noise = found.load_noise()
    assert [waveform.size for waveform, _ in noise] == [16_000 * 12] * 6
    waveform, rate = found.load(5)
    exact, _ = audio.decode(commands / found.names[5])
    assert rate == 16_000
    np.testing.assert_array_equal(waveform, exact)


def test_the_official_hash():
    """Speakers of the published testing and validation lists."""
    parts = speech_commands.official_part
    # Every clip of a speaker is on one side, whatever its number.
    assert parts("0a7c2a8d_nohash_0.wav") == parts("0a7c2a8d_nohash_4.wav")
    shares = np.array([parts(f"{i:08x}_nohash_0.wav") for i in range(3000)])
    assert abs((shares == "validation").mean() - 0.1) < 0.02
    assert abs((shares == "test").mean() - 0.1) < 0.02


def test_variants_of_speech_commands(commands, tmp_path):
    mini = read("speech_commands", commands, tmp_path, variant="mini")
    assert mini.class_names == (
        "down",
        "go",
        "left",
        "no",
        "right",
        "stop",
        "up",
        "yes",
    )
    twelve = read("speech_commands", commands, tmp_path, variant="twelve")
    names = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
    assert twelve.class_names == (*names, "_unknown_", "_silence_")
    for part in ("train", "validation", "test"):
        labels = twelve.labels[twelve.splits == part]
        assert len(set(np.bincount(labels, minlength=12))) == 1
    unknown = [n for n, i in zip(twelve.names, twelve.labels, strict=True) if i == 10]
    assert {name.split("/")[0] for name in unknown} <= {"bed", "zero", "cat", "tree"}
    silent = int(np.flatnonzero(twelve.labels == 11)[0])
    waveform, rate = twelve.load(silent)
    assert waveform.size == rate == 16_000
    again = read("speech_commands", commands, tmp_path / "b", variant="twelve")
    assert again.names == twelve.names
    np.testing.assert_array_equal(again.load(silent)[0], waveform)
    with pytest.raises(UserError, match=r"no variant 'v3'; its .*: v0\.01, v0\.02"):
        read("speech_commands", commands, tmp_path, variant="v3")
    with pytest.raises(UserError, match="its variants: none"):
        read("esc50", commands, tmp_path, variant="v3")


def test_no_moment_of_noise_is_in_two_splits(commands):
    noise = tuple(sorted((commands / speech_commands.NOISE_FOLDER).glob("*.wav")))
    counts = {"train": 40, "validation": 20, "test": 20}
    clips = silence.cut(noise, counts, "_silence_")
    spans = {part: [] for part in counts}
    for clip in clips:
        spans[clip.part].append((clip.start, clip.start + clip.seconds))
    assert {part: len(found) for part, found in spans.items()} == counts
    ends = [max(b for _, b in found) for found in spans.values()]
    starts = [min(a for a, _ in found) for found in spans.values()]
    assert ends[0] <= starts[1]
    assert ends[1] <= starts[2]
    assert ends[2] <= 12.0


def test_the_archive_of_eight_words_has_no_lists(commands, tmp_path, monkeypatch):
    folder = tmp_path / "mini_speech_commands"
    for word in speech_commands.MINI_WORDS:
        shutil.copytree(commands / word, folder / word)
    clips = len(list((folder / "go").iterdir()))
    monkeypatch.setattr(speech_commands, "MINI_CLIPS", clips)
    mini = source("speech_commands", folder, tmp_path, variant="mini").read()
    listed = read("speech_commands", commands, tmp_path, variant="mini")
    assert dict(zip(mini.names, mini.splits, strict=True)) == dict(
        zip(listed.names, listed.splits, strict=True)
    )


def test_urbansound8k_of_many_encodings(urban, tmp_path):
    found = read("urbansound8k", urban, tmp_path)
    assert len(found) == 200
    assert found.class_names == urbansound8k.CLASS_NAMES
    assert np.bincount(found.folds)[1:].tolist() == [20] * 10
    seconds, rates, _ = found.read_headers()
    assert set(rates) == {rate for rate, _, _ in published.ENCODINGS}
    for i in range(0, 200, 7):
        path = urban / "audio" / f"fold{found.folds[i]}" / found.names[i]
        exact, rate = audio.decode(path)
        waveform, told = found.load(i)
        assert told == rate == rates[i]
        assert seconds[i] == pytest.approx(exact.size / rate)
        np.testing.assert_allclose(waveform, exact, atol=2 / 32768)
        assert found.groups[i] == found.names[i].split("-")[0]
        assert found.labels[i] == int(found.names[i].split("-")[1])


@pytest.mark.parametrize(
    ("name", "classes", "fold"), [("esc50", 50, 5), ("esc10", 10, 5), ("esc10", 10, 2)]
)
def test_esc(environment, tmp_path, name, classes, fold):
    found = read(name, environment, tmp_path)
    assert len(found.class_names) == classes
    assert np.bincount(found.folds)[1:].tolist() == [2 * classes] * 5
    config = DataConfig(name=name, fold=0 if fold == 5 else fold)
    parts = splits.assign(found.labels, found.splits, found.folds, found.groups, config)
    assert set(found.folds[parts.test]) == {fold}
    assert parts.validation.size > 0
    sides = [set(found.groups[part]) for part in parts]
    assert not sides[0] & sides[1]
    assert not (sides[0] | sides[1]) & sides[2]


def test_clips_are_decoded_in_another_process(environment, tmp_path):
    found = read("esc10", environment, tmp_path)
    copy = pickle.loads(pickle.dumps(found.load))
    for index in (0, len(found) - 1):
        np.testing.assert_array_equal(copy(index)[0], found.load(index)[0])


def test_missing_recordings_are_named(urban, tmp_path):
    folder = tmp_path / "UrbanSound8K"
    shutil.copytree(urban, folder)
    gone = sorted((folder / "audio" / "fold4").glob("*.wav"))[3]
    gone.unlink()
    with pytest.raises(UserError) as refused:
        source("urbansound8k", folder, tmp_path / "cache").read()
    for words in (
        f"1 recordings are missing, {gone.name}",
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
    with pytest.raises(UserError, match=f"1 recordings are missing, {name}"):
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
    with pytest.raises(UserError, match=f"1 recordings cannot be used: .*{bad.name}"):
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


def int16_record(path, start=0.0, seconds=0.0, gain=1.0):
    """The samples of a clip as they were stored when datasets were kept as int16."""
    waveform, rate = audio.decode(path)
    first = round(start * rate)
    last = first + round(seconds * rate) if seconds else waveform.size
    waveform = gain * waveform[first:last]
    scaled = waveform * (32768 / max(1.0, float(np.abs(waveform).max(initial=0))))
    stored = np.clip(np.round(scaled), -32768, 32767).astype(np.int16)
    return stored.astype(np.float32) / 32768


def test_samples_are_those_of_int16_records(urban, commands, tmp_path):
    folder = tmp_path / "UrbanSound8K"
    shutil.copytree(urban, folder)
    loud = sorted((folder / "audio" / "fold4").glob("*.wav"))[0]
    wave, rate = soundfile.read(loud, dtype="float32")
    soundfile.write(loud, 7 * wave, rate, subtype="FLOAT")
    found = read("urbansound8k", folder, tmp_path / "cache")
    for i, (name, fold) in enumerate(zip(found.names, found.folds, strict=True)):
        expected = int16_record(folder / "audio" / f"fold{fold}" / name)
        np.testing.assert_array_equal(found.load(i)[0], expected)
    # Silence is an excerpt at a random level; background noise is read whole.
    found = read("speech_commands", commands, tmp_path, variant="twelve")
    noise = sorted((commands / speech_commands.NOISE_FOLDER).glob("*.wav"))
    silent = {
        part: int((found.labels[found.splits == part] == 11).sum())
        for part in speech_commands.SPLITS
    }
    for clip in silence.cut(noise, silent, "_silence_"):
        expected = int16_record(clip.path, clip.start, clip.seconds, clip.gain)
        i = found.names.index(clip.name)
        np.testing.assert_array_equal(found.load(i)[0], expected)
        assert found.read_headers().seconds[i] == 1.0
    for path, (waveform, _) in zip(noise, found.load_noise(), strict=True):
        np.testing.assert_array_equal(waveform, int16_record(path))


def test_unreadable_noise_is_named_or_skipped(commands, tmp_path):
    folder = tmp_path / "speech_commands"
    shutil.copytree(commands, folder)
    (folder / speech_commands.NOISE_FOLDER / "pink_noise.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"1 recordings cannot be used: .*pink_noise"):
        read("speech_commands", folder, tmp_path).load_noise()
    found = read("speech_commands", folder, tmp_path, skip_bad_files=True)
    assert len(found.load_noise()) == 5


def test_loud_floating_point_recordings_are_scaled_not_clipped(environment, tmp_path):
    folder = tmp_path / "ESC-50-master"
    shutil.copytree(environment, folder)
    loud = sorted((folder / "audio").glob("*-0.wav"))[0]
    wave, rate = soundfile.read(loud, dtype="float32")
    soundfile.write(loud, 20 * wave, rate, subtype="FLOAT")
    found = read("esc10", folder, tmp_path / "cache")
    kept, _ = found.load(found.names.index(loud.name))
    np.testing.assert_allclose(kept, wave / np.abs(wave).max(), atol=1e-4)


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
