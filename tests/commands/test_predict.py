"""``audiodd predict``: the numbers of evaluate, windows, tags, tables, label tracks."""

import csv
import dataclasses
import json
import logging
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from command_line import TINY_SELECTION, audiodd, fails
from coresets import by_one_network, labelled

import audiodd_jax
from audiodd_jax.commands import main
from audiodd_jax.data import datasets, splits
from audiodd_jax.errors import UserError
from audiodd_jax.features import cache
from audiodd_jax.kernels import ridge

RATE = 8000
ONE_SEED = "--config.evaluation.seeds=1"
TINY_NETWORK = [
    *("--model=linear", "--samples_per_class=2", "--steps=40", "--num_seeds=1"),
    *("--config.features.n_mels=16", "--config.features.frames=16"),
]


SMALL = {
    "network": {"depth": 2, "width": 8},
    "evaluation": {"networks": 2, "width": 8, "seeds": 2},
}


def write_test_clips(config, folder):
    """Writes the test clips of a dataset; returns their paths and classes."""
    clips = cache.prepare(config.data, config.features)
    given = (clips.labels, clips.splits, clips.folds, clips.groups)
    recordings = datasets.open_source(config.data).read()
    folder.mkdir()
    answers = {}
    for i in splits.assign(*given, config.data).test:
        waveform, rate = recordings.load(int(i))
        path = folder / f"{i:05d}.wav"
        soundfile.write(path, waveform, rate, subtype="FLOAT")
        answers[str(path)] = clips.class_names[clips.labels[i]]
    return answers


def tone(pitch, seconds=1.0, rate=RATE):
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(time.size)
    return 0.3 * np.sin(2 * np.pi * pitch * time) + 0.003 * noise


def coreset_of(sounds, labels, **metadata):
    """A coreset of sounds of half a second, with centred labels."""
    base = labelled(teacher_labels=None)
    return dataclasses.replace(
        base,
        images=np.asarray(base.normalize(np.stack(sounds), RATE)),
        labels=np.float32(labels) - 0.5,
        class_names=("high", "low"),
        metadata={**base.metadata, "settings": SMALL, **metadata},
    )


@pytest.fixture(scope="module")
def pitches(tmp_path_factory):
    """A folder with a run whose coreset has two pitches, and with sounds of them."""
    root = tmp_path_factory.mktemp("pitches")
    (root / "run").mkdir()
    (root / "sounds").mkdir()
    sounds = [tone(pitch, 0.5) for pitch in (2000, 400)]
    for name, sound in zip(("high", "low"), sounds, strict=True):
        soundfile.write(root / "sounds" / f"{name}.wav", sound, RATE)
    coreset_of(sounds, np.eye(2)).save(root / "run" / "coreset.npz")
    return root


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def accuracy(table, answers):
    rows = rows_of(table)
    assert [row["path"] for row in rows] == sorted(answers)
    return np.mean([row["label"] == answers[row["path"]] for row in rows])


@pytest.mark.slow
def test_test_clips_of_tones_have_the_accuracy_of_evaluate(tmp_path):
    run = tmp_path / "run"
    main.main(["distill", *TINY_SELECTION, ONE_SEED, f"--workdir={run}"])
    main.main(["train", "--dataset=tones", *TINY_NETWORK, f"--workdir={run / 'net'}"])
    coreset = audiodd_jax.load_coreset(run / "coreset.npz")
    config = audiodd_jax.for_dataset("tones")
    config = dataclasses.replace(config, features=coreset.features)
    answers = write_test_clips(config, tmp_path / "clips")
    scores = audiodd_jax.evaluate(coreset).mean
    trained = json.loads((run / "net" / "result.json").read_text())["test_accuracy"]
    for model, expected in ((run, scores), (run / "net", trained)):
        out = tmp_path / f"{model.name}.csv"
        main.main(["predict", str(model), str(tmp_path / "clips"), f"--out={out}"])
        assert accuracy(out, answers) == expected
    assert 0.2 < scores < 1
    assert scores != trained


@pytest.mark.slow
@pytest.mark.optimized
def test_test_clips_of_spoken_digits_have_the_accuracy_of_evaluate(
    real_audio, tmp_path
):
    folder = real_audio("fsdd")
    data = ["--dataset=spoken_digit", f"--data_dir={folder}"]
    few = ["--preset=quick", "--samples_per_class=2", "--steps=10", ONE_SEED]
    few += ["--config.evaluation.networks=2", "--config.evaluation.width=16"]
    main.main(["distill", *data, *few, f"--workdir={tmp_path / 'run'}"])
    network = ["--samples_per_class=5", "--steps=20", "--config.model.width=16"]
    network += ["--num_seeds=1"]
    main.main(["train", *data, *network, f"--workdir={tmp_path / 'net'}"])
    config = audiodd_jax.for_dataset("spoken_digit", data__data_dir=str(folder))
    answers = write_test_clips(config, tmp_path / "clips")
    for name in ("run", "net"):
        result = json.loads((tmp_path / name / "result.json").read_text())
        out = tmp_path / f"{name}.csv"
        # Recordings of more than a clip are cropped, as the test clips are.
        arguments = [str(tmp_path / name), str(tmp_path / "clips"), "--window=0"]
        main.main(["predict", *arguments, f"--out={out}"])
        assert accuracy(out, answers) == result["test_accuracy"]


def test_long_recordings_are_windows_with_times_and_labels(pitches, tmp_path):
    """Stereo at another rate; the last window ends where the recording does."""
    rate = 22050
    parts = [tone(pitch, 1.0, rate) for pitch in (400, 2000, 400)]
    sound = np.concatenate([*parts, tone(2000, 0.8, rate)])
    place = tmp_path / "sounds" / "deep"
    place.mkdir(parents=True)
    soundfile.write(place / "long.flac", np.stack([sound, 0.5 * sound], 1), rate)
    soundfile.write(tmp_path / "sounds" / "short.wav", tone(400, 0.3), RATE)
    out, labels = tmp_path / "new" / "table.csv", tmp_path / "labels"
    sounds = str(tmp_path / "sounds")
    main.main(
        ["predict", str(pitches / "run"), sounds, f"--out={out}", f"--labels={labels}"]
    )
    rows = rows_of(out)
    long, short = rows[:-1], rows[-1]
    assert [float(row["start"]) for row in long] == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.3]
    assert [float(row["end"]) for row in long] == [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 3.8]
    words = ["low", "low", "high", "high", "low", "low", "high", "high"]
    assert [row["label"] for row in long] == words
    assert (short["start"], short["end"], short["label"]) == ("0.000", "0.300", "low")
    for row in rows:
        first, second = float(row["probability"]), float(row["probability_2"])
        assert first > second
        assert first + second == pytest.approx(1, abs=1e-5)
    track = (labels / "deep" / "long.flac.txt").read_text()
    assert track == (
        "0.000000\t1.000000\tlow\n"
        "1.000000\t2.000000\thigh\n"
        "2.000000\t3.000000\tlow\n"
        "3.000000\t3.800000\thigh\n"
    )
    assert (labels / "short.wav.txt").read_text() == "0.000000\t0.300000\tlow\n"


def test_python_gives_the_numbers_of_the_table(pitches, tmp_path, capsys):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.concatenate([tone(400), tone(2000, 0.8)]), RATE)
    model = audiodd_jax.load_coreset(pitches / "run" / "coreset.npz")
    arguments = [str(pitches / "run"), str(path), "--top=1", "--hop=0.25"]
    main.main(["predict", *arguments])
    table = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    predictions = model.predict_file(path, hop=0.25)
    assert len(predictions) == len(table) == 7
    assert "label_2" not in table[0]
    for row, (start, end, probabilities) in zip(table, predictions, strict=True):
        assert float(row["start"]) == pytest.approx(start, abs=1e-3)
        assert float(row["end"]) == pytest.approx(end, abs=1e-3)
        assert next(iter(probabilities)) == row["label"]
        top = max(probabilities.values())
        assert float(row["probability"]) == pytest.approx(top, abs=1e-5)
    (whole,) = model.predict_file(path, top=1, window=0.0)
    assert (whole.start, whole.end) == (0, 1.8)
    assert len(whole.probabilities) == 1


def test_tags_above_one_half_are_listed_and_merged(tmp_path):
    """One class beeps throughout and another in the middle."""
    high, low = tone(2000, 0.5), tone(400, 0.5)
    sounds, labels = [high, low, high + low], [[1, 0], [0, 1], [1, 1]]
    coreset_of(sounds, labels, has_tags=True).save(tmp_path / "tagged.npz")
    sound = np.concatenate([high, high + low, high + low, high])
    soundfile.write(tmp_path / "sound.wav", 0.5 * sound, RATE, subtype="FLOAT")
    out = tmp_path / "table.csv"
    paths = [str(tmp_path / "tagged.npz"), str(tmp_path / "sound.wav")]
    main.main(["predict", *paths, f"--out={out}", f"--labels={tmp_path / 'labels'}"])
    rows = rows_of(out)
    assert [row["tags"] for row in rows] == ["high", *["high;low"] * 2, "high"]
    assert all(0 <= float(row["probability_2"]) <= 1 for row in rows)
    track = (tmp_path / "labels" / "sound.wav.txt").read_text()
    assert track == "0.000000\t2.000000\thigh\n0.500000\t1.500000\tlow\n"


def test_probabilities_after_a_platt_loss_use_its_scale(tmp_path):
    sounds = [tone(pitch, 0.5) for pitch in (2000, 400)]
    path = tmp_path / "sound.wav"
    soundfile.write(path, sounds[0] + sounds[1], RATE, subtype="FLOAT")
    platt = {**SMALL, "method": "rfad", "rfad": {"loss": "platt"}}
    found = [
        coreset_of(sounds, np.eye(2), **changes).predict_file(path)[0].probabilities
        for changes in ({}, {"settings": platt, "platt_scale": 7.0})
    ]
    # Outputs of two classes are opposite, and an estimate is an output plus a half.
    output = found[0]["high"] - 0.5
    assert output != 0
    expected = 1 / (1 + np.exp(-7.0 * 2 * output))
    assert found[1]["high"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_several_devices_predict_the_same(pitches, tmp_path):
    """Batches of eight windows on four devices, and on three that do not divide it."""
    path = tmp_path / "long.wav"
    soundfile.write(path, np.concatenate([tone(400, 2.0), tone(2000, 1.7)]), RATE)
    tables = []
    for count in (1, 3, 4):
        flags = [f"--out={tmp_path / f'{count}.csv'}", f"--num_devices={count}"]
        done = audiodd("predict", pitches / "run", path, *flags)
        assert done.returncode == 0, done.stderr
        tables.append(rows_of(tmp_path / f"{count}.csv"))
    for rows in tables[1:]:
        for ours, theirs in zip(rows, tables[0], strict=True):
            assert (ours["start"], ours["label"]) == (theirs["start"], theirs["label"])
            found, expected = float(ours["probability"]), float(theirs["probability"])
            assert found == pytest.approx(expected, abs=1e-5)


def test_bad_files_are_named_or_left_out(
    pitches, tmp_path, capsys, caplog, monkeypatch
):
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    soundfile.write(sounds / "good.wav", tone(400), RATE)
    (sounds / "text.wav").write_text("no sound")
    whole = (sounds / "good.wav").read_bytes()
    (sounds / "truncated.wav").write_bytes(whole[:9000])
    out = tmp_path / "table.csv"
    command = ["predict", pitches / "run", sounds, f"--out={out}"]
    said = fails(capsys, *command)
    assert "text.wav is not readable audio" in said
    assert not out.exists()
    monkeypatch.setattr(logging.getLogger("audiodd_jax"), "propagate", True)
    main.main([*map(str, command), "--skip_bad_files"])
    assert {row["path"] for row in rows_of(out)} == {str(sounds / "good.wav")}
    assert "truncated" in caplog.text
    said = fails(capsys, *command)
    assert said.startswith(f"{out} exists")
    (sounds / "good.wav").unlink()
    said = fails(capsys, *command, "--overwrite", "--skip_bad_files")
    assert "text.wav" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "usage: audiodd predict MODEL SOUNDS..."),
        (["nothing", "sounds"], "there is no model nothing"),
        (["sounds", "sounds"], "sounds holds neither networks.npz nor coreset.npz"),
        (["sounds/high.wav", "sounds"], "is not a coreset"),
        (["run", "empty"], "the folder empty holds no sound file (wav, "),
        (["run", "missing.wav"], "missing.wav does not exist"),
        (["run", "sounds", "--window=2"], "--window is at most 0.5 s"),
        (["run", "sounds", "--hop=0"], "--hop is above 0"),
        (["run", "sounds", "--out=empty"], "empty exists"),
        (
            ["run", "sounds", "--out=sounds/low.wav", "--overwrite"],
            "sounds/low.wav is read here",
        ),
        (["run", "run", "sounds"], "run is a model; give one model, and then sounds"),
        (["run", "run/coreset.npz"], "run/coreset.npz is a model"),
        (["run", "sounds", "--out=sounds/low.wav/x.csv"], "x.csv cannot be written"),
        (["run", "sounds", "--out=" + "x" * 256], "is too long"),
        (
            ["run", "sounds", "--labels=new", "--out=new/low.wav.txt"],
            "new/low.wav.txt is a label track too",
        ),
    ],
)
def test_refusals(pitches, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(pitches)
    (pitches / "empty").mkdir(exist_ok=True)
    assert words in fails(capsys, "predict", *arguments)


@pytest.mark.slow
def test_the_example_predicts_what_it_is_given(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ridge, "solved", by_one_network)
    path = tmp_path / "noise.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(9000), 9000)
    main.main(["predict", "example", str(path), "--top=0"])
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert len(row) == 3 + 2 * 40


def test_a_model_of_another_clip_length_says_so():
    coreset = labelled()
    with pytest.raises(UserError, match="--window is at most 0"):
        coreset.predict_file("x.wav", window=0.6)


@pytest.mark.slow
def test_a_recording_of_hours_is_never_held_whole(pitches, tmp_path):
    """Three hours at 48 kHz are 2 GB as float32."""
    path = tmp_path / "long.wav"
    minute = np.tile(tone(400, 1.0, 48000), 60).astype(np.float32)
    with soundfile.SoundFile(path, "w", 48000, 1, "ULAW") as file:
        for _ in range(180):
            file.write(minute)
    code = (
        "import audiodd_jax\n"
        "from audiodd_jax.runtime.memory import peak_bytes\n"
        f"model = audiodd_jax.load_coreset({str(pitches / 'run/coreset.npz')!r})\n"
        f"model.predict_file({str(pitches / 'sounds/low.wav')!r})\n"
        "before = peak_bytes()\n"
        f"found = model.predict_file({str(path)!r})\n"
        "assert len(found) == 21600\n"
        "assert {list(f.probabilities)[0] for f in found} == {'low'}\n"
        "print((peak_bytes() - before) >> 20)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # The program of a full batch, and a minute per thread that decodes.
    assert int(done.stdout) < 1000
