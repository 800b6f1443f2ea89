"""``audiodd active``, as a user runs it: one function, several, beside a coreset."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
from checks import prepared
from command_line import FEATURES, FEW, NETWORK, TINY, audiodd, fails

from audiodd_jax.commands import active, main
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.normalization import Normalization

TONES = ["active", "--dataset=tones", *FEATURES, *NETWORK]


@pytest.mark.slow
def test_one_function_on_real_recordings_writes_its_files(real_audio, tmp_path, capsys):
    """On recordings, through a new process, and again: it is finished already."""
    folder, run = real_audio("fsdd"), tmp_path / "run"
    command = [
        "active",
        "--dataset=spoken_digit",
        f"--data_dir={folder}",
        *FEATURES,
        *NETWORK,
        *FEW,
        "--acquisition=badge",
        f"--workdir={run}",
    ]
    done = audiodd(*command)
    assert done.returncode == 0, done.stderr
    for name in (
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "labelled.npy",
        "networks.npz",
        "result.json",
        "README.md",
        "figures/learning_curve.png",
        "checkpoints",
        "rounds/01/metrics.jsonl",
        "rounds/03/metrics.jsonl",
    ):
        assert (run / name).exists(), name
    assert list(run.glob("events.out.tfevents*"))
    result = json.loads((run / "result.json").read_text())
    assert result["acquisition"] == "badge"
    assert result["budgets"] == {"2/class": 20, "3/class": 30}
    assert [row["labelled"] for row in result["rounds"]] == [10, 20, 30]
    rows = [json.loads(li) for li in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        assert sum(row["class_counts"]) == row["labelled"]
        assert row["fraction"] == row["labelled"] / 2700
        assert 0 <= row["test_accuracy"] <= 1
        assert row["seconds"] > 0
    labelled = np.load(run / "labelled.npy")
    assert len(set(labelled.tolist())) == 30
    assert "labelled   of train" in done.stdout
    card = (run / "README.md").read_text()
    assert "by `badge`" in card
    assert "- Splits: official: test takes 0-4 of each speaker and digit" in card
    assert "- Groups: none" in card
    main.main(command)
    assert "finished already" in capsys.readouterr().out


@pytest.mark.slow
def test_labelled_clips_train_and_distil(tmp_path, capsys):
    """What was labelled is what ``train --indices`` and ``distill --labelled`` take."""
    run = tmp_path / "run"
    main.main([*TONES, *FEW, "--acquisition=random", f"--workdir={run}"])
    indices = f"--indices={run / 'labelled.npy'}"
    train = ["train", "--dataset=tones", *FEATURES, "--steps=2", "--num_seeds=1"]
    main.main([*train, *NETWORK[:4], indices, f"--workdir={tmp_path / 'train'}"])
    result = json.loads((tmp_path / "train" / "result.json").read_text())
    assert result["num_samples"] == 30
    distill = ["distill", "--dataset=tones", *TINY, "--samples_per_class=1"]
    place = f"--workdir={tmp_path / 'bought'}"
    main.main([*distill, f"--labelled={run}@2/class", place])
    assert "20 of 2,000 clips in the training split (1.0 %)" in capsys.readouterr().out
    place = f"--workdir={tmp_path / 'without'}"
    sentence = fails(capsys, *distill, f"--labelled={run}", place)
    assert "RUN@20%" in sentence
    other = f"--workdir={tmp_path / 'other'}"
    sentence = fails(capsys, *distill, f"--labelled={run}@9/class", other)
    assert "no round with 9/class (90 labels); its rounds have 10, 20, 30" in sentence


@pytest.fixture(scope="module")
def coreset(tmp_path_factory):
    """A tiny coreset of tones, of two a class."""
    run = tmp_path_factory.mktemp("distilled") / "run"
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.getbasetemp() / "cache"
        patch.setenv("AUDIODD_CACHE", str(cache))
        distill = ["distill", "--dataset=tones", *TINY, "--samples_per_class=2"]
        main.main([*distill, f"--workdir={run}"])
    return run / "coreset.npz"


@pytest.mark.slow
def test_several_functions_compared_with_a_coreset(tmp_path, capsys, coreset):
    out = tmp_path / "out"
    command = [
        "active",
        f"--coreset={coreset}",
        *NETWORK,
        *FEW,
        "--acquisition=random,k_center",
        "--num_seeds=2",
        f"--workdir={out}",
    ]
    main.main(command)
    said = capsys.readouterr().out
    assert re.search(r"\| labels chosen by +\| 10 clips, 0.5 % +\|", said)
    assert "With 20 clips the coreset reaches" in said
    for name in ("random-seed0", "random-seed1", "k_center-seed1", "coreset20-seed1"):
        assert (out / name / "result.json").exists(), name
    assert (out / "learning_curves.png").exists()
    values = json.loads((out / "comparison.json").read_text())
    assert [curve["name"] for curve in values["curves"]] == ["random", "k_center"]
    assert np.shape(values["curves"][0]["accuracies"]) == (2, 3)
    assert values["coresets"][0]["clips"] == 20
    assert len(values["coresets"][0]["accuracies"]) == 2
    card = (out / "README.md").read_text()
    assert "learning_curves.png" in card
    # Again: nothing is trained, the table is the same.
    times = {p: p.stat().st_mtime_ns for p in out.glob("*-seed*/result.json")}
    main.main(command)
    assert times == {p: p.stat().st_mtime_ns for p in out.glob("*-seed*/result.json")}
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--acquisition=balb"], "no acquisition function 'balb'; choose from random"),
        (["--acquisition=bald,bald"], "names each function once"),
        (["--acquisition=,"], "names each function once"),
        (["--model=vgg"], "unknown model 'vgg'"),
        (["--budgets=0.4,0.2"], "budgets must increase: the budget 0.2"),
        (["--budgets=100%"], "2,000 clips, but the pool has 1,800"),
        (["--budgets=ten"], "a budget is a fraction"),
        (["--budgets="], "at least one budget"),
        (["--config.active.passes=0"], "active.passes must be at least 1"),
        (["--config.active.initial=200/class"], "seed set 200/class"),
        (["--config.model.dropout=0", "--acquisition=margin"], "dropout above 0"),
        (["--config.training.seeds=2"], "one network per round"),
        (["--num_seeds=0"], "num_seeds must be at least 1"),
        (["--fold=all"], "active tests on one fold"),
        (["--coreset=nothing.npz"], "nothing.npz"),
        (["--config.active.initial_draw=odd"], "balanced or uniform"),
    ],
)
def test_bad_active_input_is_one_sentence(tmp_path, capsys, flags, message):
    run = f"--workdir={tmp_path / 'run'}"
    assert message in fails(capsys, *TONES, run, *flags)


def test_other_settings_in_the_same_folder_are_refused(tmp_path, capsys):
    run = f"--workdir={tmp_path / 'run'}"
    command = [*TONES, *FEW, "--model=linear", run]
    main.main([*command, "--acquisition=random"])
    capsys.readouterr()
    other = fails(capsys, *command, "--acquisition=margin")
    assert "active.acquisition was 'random' and is now 'margin'" in other
    several = fails(capsys, *command, "--acquisition=random,margin")
    assert "holds a single run" in several


@pytest.mark.slow
def test_scores_are_compared_with_and_without_diverse_batches(
    tmp_path, capsys, monkeypatch
):
    seen = []

    class StopError(Exception):
        pass

    def learn(config, data, folder):
        seen.append((config.active.acquisition, config.active.diversity, folder.name))
        if len(seen) == 2:
            raise StopError
        return {}

    monkeypatch.setattr(active, "learn", learn)
    clips = Clips(jnp.zeros((3, 8, 8, 1)), jnp.arange(3))
    data = prepared(clips, clips, Normalization(jnp.zeros(8), jnp.ones(8)))
    monkeypatch.setattr(active, "load", lambda *_: data)
    arguments = ["active", "--dataset=tones", f"--workdir={tmp_path}"]
    with pytest.raises(StopError):
        main.main([*arguments, "--acquisition=vote_entropy_diverse,margin"])
    assert seen == [
        ("vote_entropy", 10, "vote_entropy_diverse-seed0"),
        ("margin", 0, "margin-seed0"),
    ]
    said = fails(capsys, *arguments, "--acquisition=random_diverse")
    assert "no acquisition function 'random_diverse'" in said


def test_a_coreset_of_other_features_is_refused_for_comparison(
    tmp_path, capsys, coreset
):
    other = tmp_path / "other"
    features = [a.replace("frames=16", "frames=32") for a in TINY]
    distill = ["distill", "--dataset=tones", *features, "--samples_per_class=1"]
    main.main([*distill, f"--workdir={other}"])
    capsys.readouterr()
    both = f"--coreset={coreset},{other / 'coreset.npz'}"
    said = fails(capsys, "active", both, *NETWORK, f"--workdir={tmp_path / 'run'}")
    assert "different features" in said
