"""Folders for NumPy and PyTorch: the same arrays, spectrograms and networks as ours."""

import ast
import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coresets import labelled

from audiodd_jax.config import Config, presets
from audiodd_jax.coreset.file import load_coreset
from audiodd_jax.data import audio
from audiodd_jax.errors import UserError
from audiodd_jax.features import augment as augment_lib
from audiodd_jax.features import normalization
from audiodd_jax.networks import models
from audiodd_jax.report.exports import network_folder
from audiodd_jax.report.exports.network_folder import Recipe
from audiodd_jax.training import trainer

SCRIPTS = Path(network_folder.__file__).parent / "standalone"
TORCH = importlib.util.find_spec("torch")
needs_torch = pytest.mark.skipif(
    TORCH is None, reason="no PyTorch: pip install torch brings it"
)


def loaded(folder, name, monkeypatch):
    """A script of an exported folder as a module, as if run there."""
    monkeypatch.syspath_prepend(str(folder))
    for module in ("preprocess", "augment", "train"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(folder, coreset=None, *, torch=False, **changes):
    """A folder with a coreset, by the ConvNet's recipe."""
    folder.mkdir()
    config = presets.for_model(Config(), "convnet", **changes)
    coreset = coreset or labelled(teacher_labels=None)
    recipe = Recipe(config.model, config.training)
    network_folder.write(folder, coreset, recipe, None, torch=torch)
    return folder


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.py")), ids=lambda p: p.name)
def test_scripts_need_only_pytorch_and_numpy(script):
    tree = ast.walk(ast.parse(script.read_text()))
    found = set()
    for node in tree:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    own = {"preprocess", "augment", "numpy"}
    torch = set() if script.name == "preprocess.py" else {"torch"}
    assert found - set(sys.stdlib_module_names) <= own | torch


def test_the_coreset_and_its_training_data_are_restored(tmp_path):
    coreset = labelled()
    folder = written(tmp_path / "views", coreset)
    again = load_coreset(folder / "coreset.npz")
    for name in ("images", "labels", "teacher_labels"):
        np.testing.assert_array_equal(getattr(again, name), getattr(coreset, name))
    arrays, views = np.load(folder / "train.npz"), coreset.views()
    np.testing.assert_array_equal(arrays["images"], views.images[..., 0])
    np.testing.assert_array_equal(arrays["targets"], views.labels)
    assert arrays["class_names"].tolist() == ["a", "b"]
    plain = np.load(written(tmp_path / "plain") / "train.npz")
    np.testing.assert_array_equal(plain["images"], coreset.images[..., 0])
    # The softmax of five times the centred label 0.5, -0.5.
    wanted = [1 / (1 + np.exp(-5)), 1 / (1 + np.exp(5))]
    np.testing.assert_allclose(plain["targets"][0], wanted, rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"align": "center", "top_db": 60.0, "mel_scale": "htk"},
        {"align": "repeat", "clip_reference": "absolute", "n_fft": 512},
    ],
    ids=["peak", "htk", "absolute"],
)
def test_the_exported_log_mel_matches_ours_to_a_thousandth_of_a_decibel(
    settings, tmp_path, monkeypatch
):
    base = labelled(teacher_labels=None)
    features = dataclasses.replace(base.features, **settings)
    metadata = {**base.metadata, "features": dataclasses.asdict(features)}
    coreset = dataclasses.replace(base, metadata=metadata)
    folder = written(tmp_path / "out", coreset)
    module = loaded(folder, "preprocess", monkeypatch)
    rng = np.random.default_rng(0)
    for length in (1000, 4000, 7000):
        time = np.arange(length) / 8000
        sweep = np.sin(2 * np.pi * (200 + 900 * time) * time) * np.exp(-2 * time)
        waveform = 0.3 * sweep + 0.01 * rng.standard_normal(length)
        waveform = waveform.astype(np.float32)
        ours = coreset.normalize(waveform, 8000)
        found = module.preprocess(waveform, 8000)
        assert found.dtype == np.float32
        decibel = np.abs(found - np.asarray(ours)[0, ..., 0]).max() * 12
        assert decibel < 1e-3
    silent = module.preprocess(np.zeros(3000), 8000)
    ours = coreset.normalize(np.zeros(3000), 8000)
    np.testing.assert_allclose(silent, np.asarray(ours)[0, ..., 0], rtol=1e-6)


def test_other_sample_rates_sound_the_same(tmp_path, monkeypatch):
    coreset = labelled(teacher_labels=None)
    module = loaded(written(tmp_path / "out"), "preprocess", monkeypatch)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(22_050).astype(np.float32)
    for rate in (11_025, 22_050):
        wave = audio.resample(noise, 22_050, rate)
        found = module.resampled(wave, rate)
        ours = audio.resample(wave, rate, 8000)
        assert abs(found.size - ours.size) <= 1
        # The filters differ above nine tenths of the highest frequency.
        middle = slice(400, 4000)
        spectra = [np.fft.rfft(x[middle] * np.hanning(3600)) for x in (found, ours)]
        low = slice(0, int(0.88 * spectra[0].size))
        error = np.abs(spectra[0] - spectra[1])[low].max() / np.abs(spectra[1]).max()
        assert error < 1e-2
    assert coreset.features.sample_rate == module.SAMPLE_RATE


@pytest.mark.parametrize(
    "changes",
    [
        {"training__mixup": 0.2},
        {"training__optimizer": "sgd"},
        {"training__augment__background": 0.5},
    ],
)
def test_settings_that_the_script_lacks_are_refused(changes, tmp_path):
    (setting,) = changes
    with pytest.raises(UserError, match=setting.replace("__", r"\.")):
        written(tmp_path / "out", torch=True, **changes)
    written(tmp_path / "numpy", **changes)


def test_views_are_not_augmented_again(tmp_path):
    """As ours are, and real images are."""
    for name, coreset in (("views", labelled()), ("plain", None)):
        folder = written(tmp_path / name, coreset, torch=True)
        recipe = json.loads((folder / "recipe.json").read_text())
        is_augmented = name == "plain"
        assert (recipe["augment"] is not None) == is_augmented
        assert (folder / "augment.py").exists() == is_augmented
    assert recipe["augment"]["gain_db"] == 6.0


@pytest.mark.slow
@needs_torch
@pytest.mark.parametrize("norm", ["batch", "instance", "group", "none"])
@pytest.mark.parametrize("readout", ["flatten", "time_mean", "mean"])
def test_the_exported_network_matches_ours(norm, readout, tmp_path, monkeypatch):
    """The same weights give the same logits, in training too."""
    import torch

    changes = {"model__norm": norm, "model__readout": readout, "model__head": "random"}
    folder = written(tmp_path / "out", torch=True, model__width=16, **changes)
    module = loaded(folder, "train", monkeypatch)
    config = presets.for_model(Config(), "convnet", model__width=16, **changes)
    model = models.make(config.model, 2)
    ours = models.init(jax.random.key(0), model, (8, 16))
    theirs = module.ConvNet((8, 16), 2)
    params = ours.params
    state = {}
    for i in range(4):
        conv = params[f"Conv_{i}"]
        state[f"convs.{i}.weight"] = conv["kernel"].transpose(3, 2, 0, 1)
        if norm == "none":
            state[f"convs.{i}.bias"] = conv["bias"]
            continue
        own = {"batch": "BatchNorm", "instance": "GroupNorm", "group": "_GroupNorm"}
        layer = params[f"{own[norm]}_{i}"]
        layer = layer.get("GroupNorm_0", layer)
        state[f"norms.{i}.weight"] = layer["scale"]
        state[f"norms.{i}.bias"] = layer["bias"]
    head = params["Head_0"]["Dense_0"]
    # Ours flattens frequency, time, channels; PyTorch's has channels first.
    places = head["kernel"].shape[0] // 16
    kernel = head["kernel"].reshape(places, 16, 2).transpose(2, 1, 0).reshape(2, -1)
    state |= {"head.weight": kernel, "head.bias": head["bias"]}
    state = {name: torch.tensor(np.asarray(value)) for name, value in state.items()}
    missing, extra = theirs.load_state_dict(state, strict=False)
    assert not extra
    assert all("running" in name or "num_batches" in name for name in missing)
    x = np.random.default_rng(0).standard_normal((5, 8, 16, 1)).astype(np.float32)
    wanted, _ = models.train_logits(model, ours, jnp.asarray(x), jax.random.key(1))
    found = theirs.train()(torch.tensor(x.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(found.detach().numpy(), wanted, atol=1e-4)


@pytest.mark.slow
@needs_torch
def test_the_exported_optimizer_and_weights_match_ours(tmp_path, monkeypatch):
    import torch

    folder = written(tmp_path / "out", torch=True)
    module = loaded(folder, "train", monkeypatch)
    config = presets.for_model(Config(), "convnet").training
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    ours = trainer.optimizer(config)
    state = ours.init(params)
    weights = torch.ones(2, 2, requires_grad=True)
    bias = torch.ones(2, requires_grad=True)
    groups = [
        {"params": [weights], "weight_decay": config.weight_decay},
        {"params": [bias], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, config.learning_rate)
    rates = lambda step: module.rate(step, config.steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(theirs, rates)
    for step in range(config.steps):
        gradient = np.float32(np.sin(step / 7) + 0.3)
        grads = jax.tree.map(lambda p, g=gradient: jnp.full_like(p, g), params)
        updates, state = ours.update(grads, state, params)
        params = jax.tree.map(lambda p, u: p + u, params, updates)
        for leaf in (weights, bias):
            leaf.grad = torch.full_like(leaf, float(gradient))
        theirs.step()
        schedule.step()
    np.testing.assert_allclose(weights.detach().numpy(), params["w"], rtol=1e-4)
    np.testing.assert_allclose(bias.detach().numpy(), params["b"], rtol=1e-4)
    torch.manual_seed(0)
    kernel = module.truncated_normal(torch.empty(64, 32, 3, 3), 2)
    assert float(kernel.std()) == pytest.approx(np.sqrt(2 / (32 * 9)), rel=0.02)


@pytest.mark.slow
@needs_torch
def test_augmentation_is_distributed_as_ours(tmp_path, monkeypatch):
    """Mean and deviation of every bin over many draws."""
    import torch

    folder = written(tmp_path / "out", torch=True)
    module = loaded(folder, "augment", monkeypatch)
    config = presets.for_model(Config(), "convnet").training.augment
    stats = normalization.Normalization(*(np.float32([v] * 8) for v in (-30, 12)))
    image = np.random.default_rng(0).standard_normal((1, 8, 16, 1)).astype(np.float32)
    draws = 20_000
    ours = augment_lib.augment(
        jax.random.key(0), jnp.asarray(np.tile(image, (draws, 1, 1, 1))), config, stats
    )
    torch.manual_seed(0)
    images = torch.tensor(np.tile(image.transpose(0, 3, 1, 2), (draws, 1, 1, 1)))
    theirs = module.augment(images).numpy()[:, 0]
    ours = np.asarray(ours)[..., 0]
    np.testing.assert_allclose(theirs.mean(0), ours.mean(0), atol=0.05)
    np.testing.assert_allclose(theirs.std(0), ours.std(0), rtol=0.04)
