"""``audiodd export``: from a run to a folder that another library learns from."""

import importlib.util
import os
import subprocess
import sys

import checks
import numpy as np
import pytest
from command_line import TINY, fails

import audiodd_jax
from audiodd_jax.commands import main
from audiodd_jax.coreset.dataset import coreset_config

HAS_TORCH = importlib.util.find_spec("torch") is not None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Ten spectrograms of tones, one per class."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.getbasetemp() / "cache"
        patch.setenv("AUDIODD_CACHE", str(cache))
        place = tmp_path_factory.mktemp("export") / "run"
        options = ["--dataset=tones", "--method=random", "--samples_per_class=1"]
        main.main(["distill", *options, *TINY[:-1], f"--workdir={place}"])
    return place


def preprocess(folder):
    """The exported function."""
    spec = importlib.util.spec_from_file_location("p", folder / "preprocess.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.preprocess


def test_numpy_exports_hold_the_same_test_clips(run, capsys):
    main.main(["export", str(run), "--format=numpy", "--test_clips"])
    folder = run / "export" / "numpy"
    assert str(folder) in capsys.readouterr().out
    with np.load(folder / "test.npz") as file:
        waveforms, labels = file["waveforms"], file["labels"]
    coreset = audiodd_jax.load_coreset(folder / "coreset.npz")
    data = checks.load(coreset_config(coreset), None, coreset.normalization)
    np.testing.assert_array_equal(labels, data.test.labels)
    for i in (0, 57, 399):
        found = preprocess(folder)(waveforms[i], 8000)
        # Ours come from the cache, in float16.
        ours = np.asarray(data.test.images[i, ..., 0])
        np.testing.assert_allclose(found, ours, atol=2e-3)
    card = (folder / "README.md").read_text()
    assert "400 test clips" in card
    assert "train.py" not in card


def test_settings_reach_the_script_and_missing_ones_are_refused(run, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["export", str(run / "coreset.npz"), "--format=pytorch", f"--out={out}"]
    main.main([*command, "--config.model.norm=instance", "--config.training.steps=7"])
    recipe = (out / "recipe.json").read_text()
    assert '"norm": "instance"' in recipe
    assert '"steps": 7' in recipe
    assert "exists already" in fails(capsys, *command)
    command[-1] = f"--out={tmp_path / 'other'}"
    told = fails(capsys, *command, "--config.training.loss=mse")
    assert told.startswith("the script for PyTorch supports only training.loss=cross")
    assert sorted(place.name for place in tmp_path.iterdir()) == ["out"]


def test_impossible_exports_are_refused(run, capsys):
    assert fails(capsys, "export") == "usage: audiodd export RUN [flags]"
    told = fails(capsys, "export", run, "--format=torch")
    assert told.endswith("datasets, coreset; did you mean pytorch?")
    told = fails(capsys, "export", run, "--format=datasets", "--test_clips")
    assert told == "--test_clips works only with pytorch and numpy, not datasets"
    assert "there is no coreset" in fails(capsys, "export", "gone", "--format=numpy")
    told = fails(capsys, "export", run, run, "--format=numpy")
    assert told.startswith("unexpected argument")


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.skipif(not HAS_TORCH, reason="no PyTorch: pip install torch brings it")
def test_pytorch_reaches_the_same_accuracy(real_audio, tmp_path):
    """Real digits: the script's accuracy next to that of ``audiodd train``."""
    data = f"--data_dir={real_audio('fsdd')}"
    run, steps, seeds = tmp_path / "run", 100, 2
    options = ["--dataset=spoken_digit", data, "--method=random"]
    options += ["--config.evaluation.networks=1", "--config.evaluation.seeds=1"]
    main.main(["distill", *options, "--samples_per_class=5", f"--workdir={run}"])
    main.main(["export", str(run), "--format=pytorch", "--test_clips", data])
    coreset = audiodd_jax.load_coreset(run / "coreset.npz")
    config = audiodd_jax.for_model(
        coreset_config(coreset, run),
        "convnet",
        training__steps=steps,
        training__seeds=seeds,
    )
    ours = audiodd_jax.train(config, tmp_path / "ours", coreset).scores
    script = run / "export" / "pytorch" / "train.py"
    done = subprocess.run(
        [sys.executable, str(script), f"--steps={steps}", f"--seeds={seeds}"],
        capture_output=True,
        text=True,
        # Threads that wait for each other stand still on a busy machine.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    theirs = float(last.removeprefix("test accuracy ").split()[0])
    assert abs(theirs - 100 * ours.mean) < 4
    assert (script.parent / "convnet.pt").stat().st_size > 10_000
