"""Odd surroundings: quotas, foreign signal handlers, folders, names, other runs."""

import errno
import os
import signal

import numpy as np
import pytest
import soundfile
from command_line import TINY_SELECTION as TINY
from command_line import fails

import audiodd_jax
from audiodd_jax.commands import main
from audiodd_jax.errors import UserError
from audiodd_jax.features import dataset
from audiodd_jax.report.runs import find
from audiodd_jax.runtime import signals

FOLDER = ["--dataset=folder", "--data_dir=sounds", *TINY[1:]]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EDQUOT, "has no quota left for you"),
        (errno.ENOSPC, "is full"),
        (errno.EFBIG, "File too large"),
        (errno.EIO, "Input/output error"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_a_write_that_the_system_refuses(number, words, monkeypatch, capsys, tmp_path):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    cache = tmp_path / "cache"
    sentence = fails(capsys, "prepare", "--dataset=tones", f"--cache_dir={cache}")
    assert words in sentence
    assert str(cache) in sentence


@pytest.mark.parametrize("foreign", [("SIGINT",), ("SIGTERM", "SIGINT", "SIGHUP")])
def test_handlers_that_were_not_installed_from_python(foreign, monkeypatch):
    """R, C++ programs and the like: Python cannot put back what it cannot see."""
    installed = signal.getsignal
    monkeypatch.setattr(
        signal, "getsignal", lambda s: None if s.name in foreign else installed(s)
    )
    before = {s: installed(s) for s in signals.SIGNALS}
    with signals.deferred_signals() as stop_signal:
        for one in signals.SIGNALS:
            is_deferred = installed(one) is not before[one]
            # nohup, for one, leaves signals ignored.
            is_ignored = before[one] == signal.SIG_IGN
            assert is_deferred == (one.name not in foreign and not is_ignored)
        assert stop_signal() == 0
    assert {s: installed(s) for s in signals.SIGNALS} == before


def test_a_thread_that_may_not_handle_signals(monkeypatch):
    def refuse(*_):
        raise ValueError("signal only works in main thread of the main interpreter")

    monkeypatch.setattr(signal, "signal", refuse)
    with signals.deferred_signals() as stop_signal:
        assert stop_signal() == 0


def recordings(folder, names):
    """Writes a table of recordings with these names; returns its path."""
    folder.mkdir()
    rng, lines = np.random.default_rng(0), ["path,label"]
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, 0.1 * rng.standard_normal(4000), 8000)
        lines.append(f"{name},{('dog', 'rain')[i % 2]}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder / "clips.csv"


@pytest.mark.parametrize(
    "pattern", ["~{}.wav", "~root{}.wav", "~/{}.wav", "~root/{}.wav"]
)
def test_files_whose_names_begin_with_a_tilde(pattern, tmp_path):
    table = recordings(tmp_path / "d", [pattern.format(i) for i in range(12)])
    config = audiodd_jax.for_dataset("folder", data_dir=str(table))
    data = dataset.load(config.data, config.features)
    assert data.num_train + len(data.test.labels) == 12


def test_a_missing_file_of_an_unknown_user_is_one_sentence(tmp_path, capsys):
    (tmp_path / "clips.csv").write_text("path,label\n~nobody-1/a.wav,a\n~/b.wav,b\n")
    table = f"--data_dir={tmp_path / 'clips.csv'}"
    assert "none of 2 listed files exists" in fails(
        capsys, "prepare", "--dataset=folder", table
    )


def test_a_folder_whose_name_begins_with_a_tilde(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recordings(tmp_path / "~sounds", [f"{i}.wav" for i in range(12)])
    main.main(["prepare", "--dataset=folder", "--data_dir=~sounds/clips.csv"])
    assert "clips                      12" in capsys.readouterr().out
    sentence = fails(capsys, "prepare", "--dataset=folder", "--data_dir=~nobody-1/x")
    assert "the home folder of ~nobody-1/x is not known" in sentence


@pytest.mark.slow
def test_a_run_is_used_from_another_folder(sound_folder, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(sound_folder.parent)
    main.main(["distill", *FOLDER, "--workdir=run"])
    coreset = (tmp_path / "run" / "coreset.npz").read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    main.main(["evaluate", "--workdir=../run"])
    export = ["export", "../run", "--format=numpy", "--test_clips", "--out=arrays"]
    main.main(export)
    # Resumed with the same folder by another name.
    (tmp_path / "run" / "result.json").unlink()
    again = [f.replace("=sounds", "=../sounds") for f in FOLDER]
    main.main(["distill", *again, "--workdir=../run"])
    assert (tmp_path / "run" / "coreset.npz").read_bytes() == coreset


def test_a_finished_run_with_other_data_is_refused(sound_folder, tmp_path, capsys):
    run = f"--workdir={tmp_path / 'run'}"
    flags = ["--dataset=folder", *TINY[1:], run]
    main.main(["distill", *flags, f"--data_dir={sound_folder}"])
    moved = sound_folder.rename(tmp_path / "moved")
    main.main(["distill", *flags, f"--data_dir={moved}"])
    other = recordings(tmp_path / "other", [f"{i}.wav" for i in range(24)])
    sentence = fails(capsys, "distill", *flags, f"--data_dir={other}")
    assert f"--data_dir was '{moved}' and is now '{other}'" in sentence


def test_another_run_is_refused_by_what_was_given(sound_folder, tmp_path, capsys):
    run = f"--workdir={tmp_path / 'run'}"
    main.main(["distill", *TINY, run])
    begins = f"{tmp_path / 'run'} holds a run with another configuration ("
    folder = f"--data_dir={sound_folder}"
    given = {
        "--dataset was 'tones' and is now 'folder'; --data_dir was ''": (
            *("--dataset=folder", folder, *TINY[1:]),
        ),
        "--method was 'random' and is now 'herding')": (*TINY, "--method=herding"),
        "seed was 0 and is now 1)": (*TINY, "--seed=1"),
        "coreset.samples_per_class was 1 and": (*TINY, "--samples_per_class=2"),
        "network.width was 4 and is now 5; loop.steps was": (
            *(*TINY, "--preset=quick", "--config.network.width=5"),
        ),
    }
    for words, flags in given.items():
        sentence = fails(capsys, "distill", *flags, run)
        assert sentence.startswith(begins + words), sentence
        for unused in ("frepo", "matching", "kip", "siamese"):
            assert unused not in sentence
    # A setting of another method is named if it is all that differs.
    other = "--config.frepo.width=3"
    assert begins + "frepo.width was 32" in fails(capsys, "distill", *TINY, other, run)


def test_a_report_names_the_runs_of_a_sweep_that_failed(tmp_path, capsys):
    main.main(["distill", *TINY, f"--workdir={tmp_path / 'sweep' / 'good'}"])
    record = (
        '{"run": "good", "event": "finished"}\n'
        '{"run": "bad", "event": "started", "flags": []}\n'
        '{"run": "bad", "event": "failed", "reason": "a class has 3 clips"}\n'
        '{"run": "late", "event": "queued"}\n'
        '{"run": "bad", "ev'
    )
    (tmp_path / "sweep" / "sweep.jsonl").write_text(record)
    found = {run.path.name: run.state for run in find([tmp_path])}
    assert found == {"good": "", "bad": "failed: a class has 3 clips", "late": "queued"}
    flags = ["--galleries=0", f"--out={tmp_path / 'page'}"]
    main.main(["report", str(tmp_path / "sweep"), *flags])
    printed = capsys.readouterr().out
    assert "3, 2 of them unfinished" in printed
    page = (tmp_path / "page" / "index.html").read_text()
    assert "failed: a class has 3 clips" in printed
    assert "failed: a class has 3 clips" in page


LONG = ("ä" * 200, "b/" * 200)


def test_names_at_the_limit_of_the_file_system(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table = recordings(tmp_path / "d", [f"{i}.wav" for i in range(24)])
    text = table.read_text().replace("dog", LONG[0]).replace("rain", LONG[1])
    table.write_text(text)
    run = "w" * 250
    flags = ["--dataset=folder", f"--data_dir={table}", *TINY[1:]]
    main.main(["distill", *flags, f"--workdir={run}"])
    main.main(["evaluate", f"--workdir={run}"])
    main.main(["export", run, "--format=audiofolder"])
    main.main(["report", run, f"--out={'r' * 250}", "--iterations=1"])
    assert audiodd_jax.load_coreset(f"{run}/coreset.npz").class_names == LONG[::-1]
    for flag in ("workdir", "data_dir", "cache_dir"):
        sentence = fails(capsys, "distill", *flags, f"--{flag}={'x' * 256}")
        assert "File name too long" in sentence


def test_flags_are_settings_in_python():
    config = audiodd_jax.for_dataset(
        "tones", samples_per_class=3, data_dir="x", steps=7, num_seeds=2, method="dm"
    )
    assert (config.coreset.samples_per_class, config.data.data_dir) == (3, "x")
    assert (config.loop.steps, config.training.steps) == (7, 500)
    assert config.evaluation.seeds == config.training.seeds == 2
    assert config.loop.keep == "last"  # the default of dm
    assert audiodd_jax.for_dataset("tones", labelled="a@2%").labels.run == "a"
    model = audiodd_jax.for_model(config, "linear", steps=9, num_seeds=1)
    assert (model.training.steps, model.training.seeds) == (9, 1)
    active = audiodd_jax.for_active(config, "linear", budgets=("9%",), seed=4)
    assert (active.active.budgets, active.seed) == (("9%",), 4)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ipc", "samples_per_class"),
        ("sample_per_class", "samples_per_class"),
        ("learning_rate", "optimizer.learning_rate"),
        ("data_path", "data_dir"),
    ],
)
def test_unknown_flags_and_settings_get_suggestions(name, meant, capsys):
    python = meant.replace(".", "__")
    with pytest.raises(UserError, match=f"setting '{name}'; did you mean .*{python}"):
        audiodd_jax.for_dataset("tones", **{name: 1})
    sentence = fails(capsys, "distill", f"--{name}=1")
    assert sentence.startswith(f"Unknown command line flag '{name}'. Did you mean: ")
    assert meant in sentence
