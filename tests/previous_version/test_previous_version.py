"""Runs and artefacts of version 0.1.0, before the modules moved, still work.

``runs.tar.gz`` holds five runs on ``tones`` (16 x 16 features, networks of width 4):
two finished distillations (``rfad``, and ``factor2`` with ``coreset.factor=2``), the
first of them interrupted after its checkpoint of step 4 (``interrupted``), a training
and an active-learning run. Pictures, events and the checkpoints of finished runs were
removed, and paths of the machine that made them.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

import audiodd_jax
from audiodd_jax.commands import main

pytestmark = pytest.mark.optimized

ARCHIVE = Path(__file__).parent / "runs.tar.gz"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("previous")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(place, filter="data")
    return place


def flags_of(run):
    """The command line of a run: its settings, as ``--config.`` flags."""

    def leaves(values, prefix):
        for name, value in values.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{prefix}{name}.")
            elif not isinstance(value, list):
                yield f"--{prefix}{name}={value}"

    config = json.loads((run / "config.json").read_text())
    method, seed = config.pop("method"), config.pop("seed")
    return [f"--method={method}", f"--seed={seed}", *leaves(config, "config.")]


@pytest.mark.parametrize(("name", "shape"), [("rfad", 10), ("factor2", 20)])
def test_coresets_load(runs, name, shape):
    coreset = audiodd_jax.load_coreset(runs / name / "coreset.npz")
    assert coreset.unpack().images.shape == (shape, 16, 16, 1)
    assert len(coreset.class_names) == 10


def test_an_old_coreset_keeps_its_score(runs, capsys):
    result = json.loads((runs / "rfad" / "result.json").read_text())
    main.main(["evaluate", f"--workdir={runs / 'rfad'}"])
    accuracy = capsys.readouterr().out.split("test accuracy")[1].split()[0]
    # One test clip in 400 either way, on another CPU.
    assert float(accuracy) == pytest.approx(100 * result["test_accuracy"], abs=0.3)


def test_a_finished_run_is_recognised(runs, capsys):
    run = runs / "rfad"
    main.main(["distill", *flags_of(run), f"--workdir={run}"])
    assert "finished already" in capsys.readouterr().out


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_coreset(runs):
    run = runs / "interrupted"
    main.main(["distill", *flags_of(run), f"--workdir={run}"])
    ours, theirs = (
        audiodd_jax.load_coreset(runs / name / "coreset.npz")
        for name in ("interrupted", "rfad")
    )
    scale = np.abs(theirs.images).max()
    np.testing.assert_allclose(ours.images, theirs.images, atol=1e-4 * scale)
    np.testing.assert_allclose(ours.labels, theirs.labels, atol=1e-4)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == [0, 2, 4, 6, 8]


def test_networks_load_and_predict(runs):
    coreset = audiodd_jax.load_coreset(runs / "rfad" / "coreset.npz")
    for name in ("train", "active"):
        networks = audiodd_jax.load_networks(runs / name / "networks.npz")
        found = networks.predict(coreset.images)
        np.testing.assert_allclose(found.sum(1), np.ones(10), rtol=1e-5)


def test_all_old_runs_are_reported(runs, tmp_path):
    main.main(["report", str(runs), f"--out={tmp_path / 'out'}", "--galleries=0"])
    page = (tmp_path / "out" / "index.html").read_text()
    for words in ("tones", "convnet", "bald"):
        assert words in page
