"""``audiodd train`` and ``audiodd evaluate``, as a user runs them."""

import json

import numpy as np
import pytest
from command_line import FEATURES, TINY, audiodd, fails

import audiodd_jax
from audiodd_jax.commands import main

NETWORK = [
    "--config.model.depth=2",
    "--config.model.width=4",
    "--config.training.log_every=2",
    "--config.training.checkpoint_every=4",
    "--steps=8",
    "--num_seeds=2",
]


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    """A tiny coreset of tones, and its run."""
    run = tmp_path_factory.mktemp("distilled") / "run"
    command = ["distill", "--dataset=tones", *TINY, "--samples_per_class=2"]
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.getbasetemp() / "cache"
        patch.setenv("AUDIODD_CACHE", str(cache))
        main.main([*command, f"--workdir={run}"])
    return run


@pytest.mark.slow
def test_training_on_real_recordings_writes_its_files(real_audio, tmp_path, capsys):
    """On recordings, through a new process, and again: it is finished already."""
    folder, run = real_audio("urbansound8k_sample"), tmp_path / "run"
    command = [
        "train",
        "--dataset=urbansound8k",
        "--allow_partial",
        f"--data_dir={folder}",
        *FEATURES,
        *NETWORK,
        f"--workdir={run}",
    ]
    done = audiodd(*command)
    assert done.returncode == 0, done.stderr
    for name in (
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "networks.npz",
        "result.json",
        "README.md",
        "figures/confusion.png",
        "figures/curves.png",
        "checkpoints",
    ):
        assert (run / name).exists(), name
    assert list(run.glob("events.out.tfevents*"))
    result = json.loads((run / "result.json").read_text())
    assert result["learns_from"] == "all"
    assert len(result["test_accuracies"]) == 2
    assert np.sum(result["confusions"]) == 2 * (60 - result["num_train"])
    assert "test accuracy" in done.stdout
    card = (run / "README.md").read_text()
    assert "| dog_bark " in card
    assert "- Splits: " in card
    assert "- Groups: " in card
    main.main(command)
    assert "finished already" in capsys.readouterr().out

    networks = audiodd_jax.load_networks(run / "networks.npz")
    sound = np.random.default_rng(0).standard_normal((2, 22_050)).astype(np.float32)
    probabilities = networks.predict(networks.normalize(0.1 * sound, 22_050))
    assert probabilities.shape == (2, 10)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("flags", "learns_from", "clips"),
    [
        (["--samples_per_class=3"], "random", 30),
        (["--samples_per_class=3", "--herding"], "herding", 30),
        (["--fraction=0.05"], "fraction", 100),
        (["--indices={indices}"], "indices", 3),
    ],
)
def test_training_on_a_part(tmp_path, capsys, flags, learns_from, clips):
    indices = tmp_path / "indices.txt"
    indices.write_text("4 8 15\n")
    flags = [flag.format(indices=indices) for flag in flags]
    run = tmp_path / "run"
    main.main(
        ["train", "--dataset=tones", *FEATURES, *NETWORK, *flags, f"--workdir={run}"]
    )
    result = json.loads((run / "result.json").read_text())
    assert result["learns_from"] == learns_from
    assert result["num_samples"] == clips
    assert f"{clips} spectrograms" in capsys.readouterr().out


def test_training_on_a_coreset_uses_its_preprocessing(distilled, tmp_path):
    run = tmp_path / "run"
    coreset = f"--coreset={distilled / 'coreset.npz'}"
    main.main(["train", coreset, "--model=linear", *NETWORK, f"--workdir={run}"])
    config = json.loads((run / "config.json").read_text())
    assert config["features"]["n_mels"] == 16
    assert config["learns_from"]["name"] == "coreset"
    networks = audiodd_jax.load_networks(run / "networks.npz")
    want = audiodd_jax.load_coreset(distilled / "coreset.npz").normalization
    np.testing.assert_array_equal(networks.normalization.mean, want.mean)


@pytest.mark.slow
def test_protocols_and_baselines_side_by_side(distilled, tmp_path, capsys):
    out = tmp_path / "evaluation"
    command = [
        "evaluate",
        f"--workdir={distilled}",
        "--protocol=krr,linear",
        "--against=random,hard,20%",
        f"--out={out}",
        *NETWORK,
    ]
    main.main(command)
    printed = capsys.readouterr().out
    assert printed.count("\n| linear ") == 4
    assert "coreset, hard labels" in printed
    rows = json.loads((out / "evaluation.json").read_text())
    assert len(rows) == 8
    assert {row["num_samples"] for row in rows} == {20, 400}
    assert all(len(row["test_accuracies"]) == 2 for row in rows)
    assert (out / "linear" / "random-draw1" / "networks.npz").exists()
    assert (out / "linear-coreset.png").exists()
    text = (out / "README.md").read_text()
    assert "| siren " in text
    # Finished trainings are not repeated.
    stamp = (out / "linear" / "coreset" / "networks.npz").stat().st_mtime_ns
    main.main(command)
    assert (out / "linear" / "coreset" / "networks.npz").stat().st_mtime_ns == stamp
    assert capsys.readouterr().out.splitlines()[-4:] == printed.splitlines()[-4:]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--model=resnet19"],
            "unknown model 'resnet19'; choose from convnet",
        ),
        (["--fraction=0"], "a fraction is above 0 and at most 1"),
        (["--fraction=0.1", "--samples_per_class=2"], "exclude each other"),
        (["--herding"], "needs --samples_per_class"),
        (["--herding", "--fraction=0.1"], "needs --samples_per_class"),
        (["--samples_per_class=0"], "samples_per_class must be at least 1"),
        (["--samples=3"], "samples=3, but each of the 10 classes"),
        (["--spread=proportional"], "--spread needs --samples"),
        (["--indices=/nowhere/list.txt"], "/nowhere/list.txt: No such file"),
        (["--indices={words}"], "is not a list of integers"),
        (["--indices={far}"], "indices of training clips are from 0 to 1799"),
        (["--indices={twice}"], "listed twice"),
        (["--coreset=/nowhere.npz"], "there is no coreset /nowhere.npz"),
        (["--fold=all"], "train uses one test fold"),
        (["--config.model.dropout=1"], "model.dropout must be at least 0 and below 1"),
        (["--config.training.loss=hinge"], "cross_entropy or mse, not 'hinge'"),
        (["--steps=0"], "training.steps must be at least 1"),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence(tmp_path, capsys, arguments, words):
    for name, text in (("words", "a b"), ("far", "3 99999"), ("twice", "1 2 1")):
        file = tmp_path / f"{name}.txt"
        file.write_text(text)
        arguments = [a.replace(f"{{{name}}}", str(file)) for a in arguments]
    run = tmp_path / "run"
    flags = ["--dataset=tones", *FEATURES, f"--workdir={run}", *arguments]
    assert words in fails(capsys, "train", *flags)
    assert not (run / "result.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--protocol=knnn"],
            "unknown protocol 'knnn'; choose from krr, knn, nngp, ntk",
        ),
        (["--against=best"], "unknown baseline 'best'"),
        (["--against=0%"], "a fraction is above 0"),
    ],
)
def test_bad_evaluations_are_one_sentence(distilled, capsys, arguments, words):
    assert words in fails(capsys, "evaluate", f"--workdir={distilled}", *arguments)


@pytest.mark.parametrize("damage", ["cut", "text", "missing"])
def test_damaged_networks_are_refused(distilled, tmp_path, damage):
    run = tmp_path / "run"
    coreset = f"--coreset={distilled / 'coreset.npz'}"
    main.main(["train", coreset, "--model=linear", *NETWORK, f"--workdir={run}"])
    path = run / "networks.npz"
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "text": b"x"}.get(damage, b""))
    if damage == "missing":
        path.unlink()
    with pytest.raises(audiodd_jax.UserError, match=r"networks"):
        audiodd_jax.load_networks(path)
