"""Commands with an encoder: distil, evaluate, label."""

import dataclasses
import json

import jax.numpy as jnp
import labelling
import numpy as np
import pytest
from command_line import fails

import audiodd_jax
from audiodd_jax.commands import main
from audiodd_jax.commands.evaluate import compare
from audiodd_jax.config import fields
from audiodd_jax.errors import UserError
from audiodd_jax.networks.encoder import Encoder

_WEIGHTS = np.random.default_rng(0).normal(size=(8, 20)).astype(np.float32)


def bands():
    """Averages over time: the loudness of random mixtures of mel bins."""

    def embed(decibels):
        return jnp.tanh(jnp.einsum("bft,fd->btd", decibels / 30 + 1, _WEIGHTS))

    front_end = {"n_mels": 8, "frames": 8, "clip_reference": "level"}
    return Encoder(front_end, embed, "bands")


def halves():
    """Another encoder with another front end."""
    embed = lambda decibels: decibels.reshape(len(decibels), 12, -1).mean(2)
    return Encoder({"n_mels": 12, "frames": 8}, embed, "halves")


NAME = f"{__name__}:bands"
SMALL = {
    "loop__steps": 2,
    "loop__log_every": 2,
    "loop__eval_every": 2,
    "loop__batch_size": 64,
    "samples_per_class": 1,
    "encoder": NAME,
}


def distilled(folder, **changes):
    config = audiodd_jax.for_dataset("tones", **{**SMALL, **changes})
    return audiodd_jax.distill(config, folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of the methods, by name."""
    folder = tmp_path_factory.mktemp("encoder")
    changes = {
        "rfad": {"encoder__views": 2},
        "lgm": {"method": "lgm"},
        "embeddings": {"distil": "embeddings"},
        "medoids": {"method": "medoids"},
    }
    return {name: distilled(folder / name, **given) for name, given in changes.items()}


@pytest.mark.parametrize("name", ["rfad", "lgm", "medoids"])
def test_spectrograms_are_distilled_and_selected(runs, name):
    run = runs[name]
    coreset = audiodd_jax.load_coreset(run.path / "coreset.npz")
    assert coreset.images.shape == (10, 8, 8, 1)
    assert coreset.features.clip_reference == "level"
    assert coreset.metadata["encoder"]["digest"] == "bands-mean"
    assert coreset.metadata["settings"]["encoder"]["name"] == NAME
    assert 0.1 <= run.result["test_accuracy"] <= 1
    card = (run.path / "README.md").read_text()
    assert "on embeddings by the encoder" in card
    again = compare(coreset, ["krr"])[0].scores
    assert again.mean == pytest.approx(run.result["test_accuracy"])


def test_embeddings_alone_are_the_upper_bound(runs):
    run = runs["embeddings"]
    coreset = audiodd_jax.load_coreset(run.path / "coreset.npz")
    assert coreset.images.shape == (10, 20, 1, 1)
    assert 0.1 <= run.result["test_accuracy"] <= 1
    with pytest.raises(UserError, match="sounds need spectrograms"):
        coreset.sounds()
    with pytest.raises(UserError, match="networks and random networks need"):
        compare(coreset, ["nngp"])
    waveform = np.sin(np.arange(8_000)).astype(np.float32)
    assert coreset.predict(coreset.normalize(waveform, 8_000)).shape == (1, 10)
    assert not (run.path / "figures" / "coreset.png").exists()


def test_a_preset_without_encoder_records_none(tmp_path):
    config = audiodd_jax.for_dataset("tones")
    assert "encoder" not in fields.record(config, fields.DISTILLATION)
    assert config.rfad.loss == "mse"


def test_protocols_learn_from_embeddings(runs):
    coreset = audiodd_jax.load_coreset(runs["rfad"].path / "coreset.npz")
    recipe = {"training.steps": 20, "training.seeds": 2}
    rows = compare(coreset, ["krr", "knn", "linear"], ["random", "all"], None, recipe)
    found = {(row.protocol, row.learns_from): row.scores.mean for row in rows}
    assert len(found) == 9
    for protocol in ("krr", "linear", "knn"):
        assert found[protocol, "all"] > found[protocol, "random"]


@pytest.mark.slow
def test_another_encoder_hears_the_sounds(runs):
    coreset = audiodd_jax.load_coreset(runs["rfad"].path / "coreset.npz")
    config = fields.replace(
        audiodd_jax.for_dataset("tones", **SMALL),
        {"encoder.name": f"{__name__}:halves"},
    )
    (row,) = compare(coreset, ["knn"], config=config)
    assert 0 <= row.scores.mean <= 1
    own = audiodd_jax.load_coreset(runs["embeddings"].path / "coreset.npz")
    with pytest.raises(UserError, match="other weights of the encoder"):
        compare(own, ["knn"], config=config)


@pytest.mark.slow
def test_active_learning_on_embeddings(tmp_path, capsys):
    arguments = [f"--encoder={NAME}", "--model=linear", "--dataset=tones", "--steps=20"]
    budgets = ["--budgets=2/class,3/class", "--config.active.initial=1/class"]
    own = ["--acquisition=margin,typiclust", f"--workdir={tmp_path / 'active'}"]
    main.main(["active", *arguments, *budgets, *own])
    assert "typiclust" in capsys.readouterr().out
    folder = tmp_path / "active" / "margin-seed0"
    rounds = json.loads((folder / "result.json").read_text())["rounds"]
    assert [row["labelled"] for row in rounds] == [10, 20, 30]
    with pytest.raises(UserError, match="heads on an encoder's embeddings"):
        audiodd_jax.load_networks(folder / "networks.npz")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--method=lgm"], "add --encoder"),
        (["--method=dm", f"--encoder={NAME}"], "dm does not learn for an encoder"),
        (["--encoder=speech"], "encoder.name must be speech_embedding, "),
        ([f"--encoder={NAME}", "--config.augment.gain_db=3"], "set encoder.views"),
        (
            [f"--encoder={NAME}", "--distil=embeddings", "--config.coreset.factor=2"],
            "coreset.factor is for spectrograms",
        ),
        (["--encoder=lost.onnx"], "there is no ONNX file lost.onnx"),
        (["--encoder=lost.npz"], "there is no networks file lost.npz"),
    ],
)
def test_refusals(capsys, tmp_path, arguments, sentence):
    given = ["--dataset=tones", f"--workdir={tmp_path / 'run'}", *arguments]
    assert sentence in fails(capsys, "distill", *given)


@pytest.mark.slow
def test_a_network_of_our_own_is_an_encoder(tmp_path, runs):
    recipe = {"model__width": 4, "steps": 4, "training__seeds": 1}
    config = audiodd_jax.for_model(
        audiodd_jax.for_dataset("tones", features__frames=16), "convnet", **recipe
    )
    audiodd_jax.train(config, tmp_path / "network")
    path = tmp_path / "network" / "networks.npz"
    run = distilled(tmp_path / "run", encoder=str(path), method="medoids")
    assert run.coreset.features.frames == 16
    recorded = run.coreset.metadata["settings"]["encoder"]["name"]
    assert recorded == "networks.npz"
    config = dataclasses.replace(
        audiodd_jax.for_dataset("tones", encoder=str(path)),
        features=run.coreset.features,
    )
    found = compare(run.coreset, ["knn"], config=config)
    assert found[0].scores.mean > 0.1


@pytest.mark.slow
def test_a_person_labels_for_an_encoder(tmp_path):
    """Rounds train a head on embeddings; the page shows spectrograms."""
    folder = labelling.sounds(tmp_path / "sounds")
    with (
        pytest.raises(UserError, match="add --model=linear, not convnet"),
        labelling.session(folder, tmp_path / "s", encoder=NAME, model="convnet"),
    ):
        pass
    with labelling.session(folder, tmp_path / "s", encoder=NAME) as session:
        for _ in range(3):
            for name in session.next_batch():
                session.answer(name, [labelling.truth(name)])
        session.next_batch()
        assert session.rounds
        assert session.log_mel("low0.wav").shape == (8, 8)
    with np.load(tmp_path / "s" / "networks.npz") as arrays:
        assert any(value.shape[-2:] == (20, 3) for value in arrays.values())
