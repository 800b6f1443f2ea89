"""Exact kernels from the command line: distilled with, and scored with."""

import json
import logging

import pytest
from command_line import fails

import audiodd_jax
from audiodd_jax.commands import main
from audiodd_jax.kernels import infinite_width

SMALL = [
    "--config.features.n_mels=8",
    "--config.features.frames=8",
    "--config.network.depth=2",
    "--config.network.width=4",
    "--config.loop.batch_size=32",
    "--config.evaluation.networks=2",
    "--config.evaluation.seeds=2",
    "--samples_per_class=1",
    "--steps=1",
]


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    run = tmp_path_factory.mktemp("exact") / "run"
    main.main(
        ["distill", "--dataset=tones", "--method=kip", *SMALL, f"--workdir={run}"]
    )
    return run


@pytest.mark.slow
def test_exact_kernels_side_by_side(distilled, capsys, caplog):
    command = ["evaluate", f"--workdir={distilled}", "--protocol=krr,nngp"]
    command.append("--against=random")
    with caplog.at_level(logging.INFO):
        main.main(command)
    printed = capsys.readouterr().out
    assert printed.count("\n| nngp ") == 2
    pairs = 10 * 11 // 2 + 400 * 10
    assert f"nngp: {pairs:,} pairs of spectrograms, at most " in caplog.text
    out = distilled / "evaluation"
    rows = json.loads((out / "evaluation.json").read_text())
    found = {(row["protocol"], row["learns_from"]): row for row in rows}
    # Nothing is drawn but the real clips.
    assert len(found["nngp", "coreset"]["test_accuracies"]) == 1
    assert len(found["nngp", "random"]["test_accuracies"]) == 2
    # Random networks estimate it.
    accuracies = [found[name, "coreset"]["test_accuracy"] for name in ("krr", "nngp")]
    assert min(accuracies) > 0.2  # chance is one in ten
    assert abs(accuracies[0] - accuracies[1]) < 0.2
    kernels = sorted(out.rglob("nngp-*.npz"))
    assert len(kernels) == (1 + 2) * 2
    # What is computed is not computed again.
    stamps = [kernel.stat().st_mtime_ns for kernel in kernels]
    main.main(command)
    assert [kernel.stat().st_mtime_ns for kernel in kernels] == stamps
    assert capsys.readouterr().out.count("\n| nngp ") == 2


@pytest.mark.slow
def test_kip_leaves_an_artefact(distilled):
    result = json.loads((distilled / "result.json").read_text())
    assert result["method"] == "kip"
    coreset = audiodd_jax.load_coreset(distilled / "coreset.npz")
    assert coreset.metadata["method"] == "kip"
    assert coreset.images.shape == (10, 8, 8, 1)


def test_a_coreset_alone_has_one_score_and_leaves_nothing(
    distilled, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    main.main(["evaluate", f"--coreset={distilled}/coreset.npz", "--protocol=ntk"])
    assert "ntk, 1 seed" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_too_large_a_kernel_is_one_sentence(distilled, capsys, monkeypatch):
    monkeypatch.setattr(infinite_width, "memory_of", lambda device: 100_000)
    told = fails(capsys, "evaluate", f"--workdir={distilled}", "--protocol=ntk")
    assert "the exact kernel of one pair of spectrograms of 8 x 8 takes" in told
