"""Published datasets the whole way, through the command line: archive to accuracy."""

import json
import re

import numpy as np
import published
import pytest

import audiodd_jax
from audiodd_jax.commands import distill as distill_command
from audiodd_jax.commands import evaluate, main
from audiodd_jax.data.published import esc50, speech_commands, urbansound8k
from audiodd_jax.errors import UserError

SMALL = [
    "--config.features.n_mels=16",
    "--config.features.frames=16",
    "--config.features.sample_rate=8000",
    "--config.features.clip_seconds=0.5",
]
TINY = [
    *SMALL,
    "--config.network.depth=2",
    "--config.network.width=4",
    "--config.loop.batch_size=64",
    "--config.loop.log_every=2",
    "--config.loop.eval_every=4",
    "--config.evaluation.networks=2",
    "--config.evaluation.width=8",
    "--config.evaluation.seeds=2",
    "--steps=4",
    "--samples_per_class=1",
]
WORDS = ("bird", "down", "go", "left", "no", "right", "stop", "up", "yes", "zero")


def run(capsys, *arguments):
    """What a command prints."""
    main.main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def value(text, name):
    """The value of a row of a printed table."""
    return re.search(rf"^{name} +(\S.*)$", text, re.MULTILINE)[1]


def distill_and_evaluate(capsys, workdir, *arguments):
    """Both commands on the same data; the result, after it was checked."""
    out = run(capsys, "distill", *arguments, *TINY, f"--workdir={workdir}")
    assert "test accuracy, distilled" in out
    result = json.loads((workdir / "result.json").read_text())
    scored = run(capsys, "evaluate", f"--workdir={workdir}")
    accuracy = float(value(scored, "test accuracy").split()[0])
    assert accuracy == pytest.approx(100 * result["test_accuracy"], abs=0.06)
    assert result["licence"] in (workdir / "README.md").read_text()
    return result


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIODD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    "version", [pytest.param("v0.01", marks=pytest.mark.slow), "v0.02"]
)
def test_speech_commands_from_a_server(
    capsys, caplog, cache, tmp_path, monkeypatch, file_server, version
):
    caplog.set_level("INFO", logger="audiodd_jax")
    folder = tmp_path / "published"
    parts = published.write_speech_commands(folder, WORDS)
    archive = published.pack_tar(folder, tmp_path / "archive.tar.gz", ".")
    server = file_server(archive.read_bytes())
    server.cuts = [200_000]
    per_word = sum(parts.values()) // len(WORDS)
    digest = published.checksum(archive, "sha256").split(":")[1]
    monkeypatch.setattr(speech_commands, "URL", server.url)
    monkeypatch.setitem(speech_commands.CHECKSUMS, version, digest)
    counts = dict.fromkeys(WORDS, per_word)
    monkeypatch.setitem(speech_commands.WORDS, version, counts)
    monkeypatch.setitem(speech_commands.PART_CLIPS, version, parts)

    data = ["--dataset=speech_commands", f"--variant={version}"]
    out = run(capsys, "prepare", *data, *SMALL)
    assert value(out, "clips") == str(sum(parts.values()))
    assert value(out, "classes") == str(len(WORDS))
    together = " / ".join(str(parts[part]) for part in ("train", "validation", "test"))
    assert value(out, "train / validation / test") == together
    assert "pieces" in value(out, "noise")
    licences = [r for r in caplog.records if "licence CC BY 4.0" in r.getMessage()]
    assert len(licences) == 1
    assert len(server.requests) == 2  # the second took up the connection that was cut

    noise = ["--config.augment.background=0.5"]
    result = distill_and_evaluate(capsys, tmp_path / "run", *data, *noise)
    assert result["num_train"] == parts["train"]
    coreset = audiodd_jax.load_coreset(tmp_path / "run" / "coreset.npz")
    assert coreset.class_names == WORDS
    assert coreset.metadata["licence"].startswith("CC BY 4.0")
    assert coreset.metadata["dataset_version"] == version
    licences = [r for r in caplog.records if "licence CC BY 4.0" in r.getMessage()]
    assert len(licences) == 1
    assert len(server.requests) == 2


def test_an_unavailable_dataset_writes_nothing(
    capsys, cache, tmp_path, monkeypatch, file_server
):
    """A wrong checksum, then a truncated archive that has the right one."""
    folder = tmp_path / "published"
    published.write_speech_commands(folder, WORDS, speakers=6)
    archive = published.pack_tar(folder, tmp_path / "archive.tar.gz", ".")
    server = file_server(archive.read_bytes())
    monkeypatch.setattr(speech_commands, "URL", server.url)
    prepare = ["prepare", "--dataset=speech_commands", *SMALL]
    with pytest.raises(UserError, match="differs from the published one: its sha256"):
        run(capsys, *prepare)
    server.body = server.body[: len(server.body) // 2]
    archive.write_bytes(server.body)
    digest = published.checksum(archive, "sha256").split(":")[1]
    monkeypatch.setitem(speech_commands.CHECKSUMS, "v0.01", digest)
    with pytest.raises(UserError, match="is a damaged archive"):
        run(capsys, *prepare)
    server.status = 503
    for file in (cache / "downloads").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"answered 503 .*; or download speech_comm"):
        run(capsys, *prepare)
    for name in ("downloads", "unpacked", "features"):
        assert not (cache / name).exists() or not list((cache / name).iterdir())


@pytest.mark.slow
def test_urbansound8k_from_its_archive(capsys, cache, tmp_path, monkeypatch):
    folder = tmp_path / "published"
    published.write_urbansound8k(folder)
    archive = cache / "downloads" / "UrbanSound8K.tar.gz"
    archive.parent.mkdir(parents=True)
    published.pack_tar(folder, archive, "UrbanSound8K")
    digest = published.checksum(archive, "md5")
    monkeypatch.setattr(urbansound8k, "CHECKSUM", digest)
    counts = dict.fromkeys(urbansound8k.CLASS_NAMES, (2,) * 10)
    monkeypatch.setattr(urbansound8k, "PUBLISHED_CLIPS", counts)
    out = run(capsys, "prepare", "--dataset=urbansound8k", *SMALL)
    assert value(out, "folds") == "10; test fold 10"
    assert "8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000" in out
    assert re.search(r"siren +\d+ / \d+ / 2 +2 +2 +2 +2 +2 +2 +2 +2 +2 +2$", out, re.M)
    result = distill_and_evaluate(
        capsys, tmp_path / "run", "--dataset=urbansound8k", "--fold=4"
    )
    assert (result["fold"], result["num_train"]) == (4, 180)
    assert "here fold 4" in (tmp_path / "run" / "README.md").read_text()
    with pytest.raises(UserError, match="the test fold of this coreset is 4"):
        run(capsys, "evaluate", f"--workdir={tmp_path / 'run'}", "--fold=5")


@pytest.mark.slow
def test_esc50_from_a_branch_that_has_changed(
    capsys, caplog, cache, tmp_path, monkeypatch, file_server
):
    caplog.set_level("INFO", logger="audiodd_jax")
    folder = tmp_path / "published"
    published.write_esc50(folder, per_fold=2)
    archive = published.pack_zip(folder, tmp_path / "archive.zip", "ESC-50-master")
    server = file_server(archive.read_bytes())
    monkeypatch.setattr(esc50, "URL", server.url)
    monkeypatch.setattr(esc50, "CLIPS_PER_FOLD", 2)
    result = distill_and_evaluate(capsys, tmp_path / "run", "--dataset=esc50")
    assert result["num_samples"] == 50
    assert result["fold"] == 5
    assert "has changed since its checksum was recorded" in caplog.text
    # The same archive serves the subset.
    out = run(capsys, "prepare", "--dataset=esc10", *SMALL)
    assert value(out, "clips") == "100"
    assert len(server.requests) == 1


@pytest.mark.slow
def test_every_fold_is_the_test_fold_once(capsys, cache, tmp_path, monkeypatch):
    folder = tmp_path / "ESC-50-master"
    published.write_esc50(folder, per_fold=4)
    monkeypatch.setattr(esc50, "CLIPS_PER_FOLD", 4)
    data = ["--dataset=esc10", f"--data_dir={folder}", "--fold=all"]
    workdir = tmp_path / "run"
    result = distill_and_evaluate(capsys, workdir, *data)
    assert [row["fold"] for row in result["folds"]] == [1, 2, 3, 4, 5]
    accuracies = [row["test_accuracy"] for row in result["folds"]]
    assert result["test_accuracy"] == pytest.approx(np.mean(accuracies))
    assert result["test_accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1))
    for fold in (1, 5):
        alone = json.loads((workdir / f"fold{fold}" / "result.json").read_text())
        assert alone["test_accuracy"] == accuracies[fold - 1]
    card = (workdir / "README.md").read_text()
    assert all(re.search(rf"\| {fold} +\| 160 ", card) for fold in range(1, 6))
    # Again: nothing is done twice; another protocol is refused.
    rows = (workdir / "fold1" / "metrics.jsonl").read_text()
    again = run(capsys, "distill", *data, *TINY, f"--workdir={workdir}")
    assert "finished already" in again
    assert (workdir / "fold1" / "metrics.jsonl").read_text() == rows
    with pytest.raises(UserError, match="another configuration"):
        run(capsys, "distill", *data[:2], *TINY, f"--workdir={workdir}")


def test_fold_all_needs_data_with_folds(capsys, cache, tmp_path):
    with pytest.raises(UserError, match="--fold=all needs data with folds; tones has"):
        run(capsys, "distill", "--fold=all", *TINY, f"--workdir={tmp_path / 'run'}")
    with pytest.raises(UserError, match="--fold is the number of a fold, or all"):
        run(capsys, "prepare", "--fold=first")
    assert evaluate._folds(tmp_path / "run") == []


@pytest.mark.slow
def test_an_interrupted_run_of_every_fold_resumes(
    capsys, cache, tmp_path, monkeypatch, sound_folder
):
    rows = [
        f"{path},{path.parent.name},{i % 2 + 1}"
        for folder in sorted(sound_folder.iterdir())
        for i, path in enumerate(sorted(folder.iterdir()))
    ]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["path,label,fold", *rows]) + "\n")
    data = ["--dataset=folder", f"--data_dir={table}", "--fold=all", "--method=random"]
    whole = distill_and_evaluate(capsys, tmp_path / "whole", *data)
    assert len(whole["folds"]) == 2
    real, calls = distill_command.distill, []

    def die_in_the_second(*arguments):
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(distill_command, "distill", die_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(capsys, "distill", *data, *TINY, f"--workdir={tmp_path / 'cut'}")
    assert not (tmp_path / "cut" / "result.json").exists()
    monkeypatch.setattr(distill_command, "distill", real)
    resumed = distill_and_evaluate(capsys, tmp_path / "cut", *data)
    untimed = lambda result: {**result, "wall_seconds": 0}
    assert untimed(resumed) == untimed(whole)


@pytest.mark.slow
def test_real_clips_of_esc10(capsys, cache, tmp_path, real_audio):
    place = ["--dataset=esc10", f"--data_dir={real_audio('esc10')}"]
    out = run(capsys, "prepare", *place, *SMALL)
    assert value(out, "clips") == "400"
    assert value(out, "folds") == "5; test fold 5"
    assert re.search(r"rain +\d+ / \d+ / 8 +8 +8 +8 +8 +8$", out, re.MULTILINE)
    result = distill_and_evaluate(capsys, tmp_path / "run", *place)
    assert (result["num_train"], result["is_partial"]) == (320, False)


@pytest.mark.slow
def test_real_clips_of_urbansound8k(capsys, cache, tmp_path, real_audio):
    place = [
        "--dataset=urbansound8k",
        f"--data_dir={real_audio('urbansound8k_sample')}",
    ]
    with pytest.raises(UserError, match=r"fold1: 0 of 100 clips; .* 94 more counts"):
        run(capsys, "prepare", *place, *SMALL)
    place.append("--allow_partial")
    assert value(run(capsys, "prepare", *place, *SMALL), "clips") == "60"
    result = distill_and_evaluate(capsys, tmp_path / "run", *place)
    assert (result["fold"], result["is_partial"]) == (3, True)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "a partial data set, 60 of 8,732 published clips, so this is not" in card
